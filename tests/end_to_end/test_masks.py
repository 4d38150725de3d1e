"""Update masks that name what cannot be updated."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import field_mask_pb2

from insta.gateway.v1 import accounts_pb2, posts_pb2
from tests.people import Person, failure


@pytest.mark.parametrize("path", ["title.x", "image_urls.0", "author"])
async def test_a_mask_below_or_beside_the_fields_of_a_post_is_refused(ana: Person, path: str) -> None:
    post = await ana.post()
    mask = field_mask_pb2.FieldMask(paths=[path])

    failed = await failure(ana.posts.UpdatePost(posts_pb2.UpdatePostRequest(post=post, update_mask=mask)))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert failed.fields == ["update_mask"]


@pytest.mark.parametrize("path", ["bio.x", "email.x", "private_details.email", "staff"])
async def test_a_mask_below_or_beside_the_fields_of_an_account_is_refused(ana: Person, path: str) -> None:
    account = accounts_pb2.Account(bio="Hello", email="a@example.com")
    mask = field_mask_pb2.FieldMask(paths=[path])

    failed = await failure(
        ana.accounts.UpdateAccount(accounts_pb2.UpdateAccountRequest(account=account, update_mask=mask))
    )

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert failed.fields == ["update_mask"]
