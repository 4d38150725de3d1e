"""Fixtures: who issues access tokens, and the metadata of a call with one."""

from __future__ import annotations

import pytest

from tests.chassis.issuer import Issuer


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def token(issuer: Issuer) -> list[tuple[str, str]]:
    """The metadata of a call by user 7."""
    return [("authorization", issuer.authorization(7))]
