"""Which store settings name, and what is said where it cannot be opened."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from chassis.settings import SettingError, from_environment
from services.posts.media.blob_store import BlobStore, open_blob_store
from services.posts.media.s3_blobs import S3Blobs
from tests.posts.media.s3_server import without_credentials

FOLDER = "0123456789abcdef" * 2
SERVED = "http://127.0.0.1:8080/media"


def opened(**environment: str) -> BlobStore:
    return open_blob_store(from_environment(environment))


def test_images_are_kept_beside_the_databases_by_default(tmp_path: Path) -> None:
    with closing(opened(INSTA_DATA=str(tmp_path / "var"))) as store:
        assert store.serves_files == tmp_path / "var" / "media"
        assert store.url(FOLDER, "320.webp") == f"{SERVED}/{FOLDER}/320.webp"


def test_settings_name_the_folder_and_its_addresses(tmp_path: Path) -> None:
    public = "https://images.example.com/"
    with closing(opened(INSTA_MEDIA_URL=f"file:{tmp_path}/images", INSTA_MEDIA_PUBLIC_URL=public)) as store:
        assert store.serves_files == tmp_path / "images"
        assert store.url(FOLDER, "320.webp") == f"https://images.example.com/{FOLDER}/320.webp"


def test_a_folder_that_cannot_be_used_is_told_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingError, match=f"^INSTA_MEDIA_URL=file:{tmp_path}/file/images: cannot use"):
        opened(INSTA_MEDIA_URL=f"file:{tmp_path}/file/images")


def test_settings_name_the_bucket_and_the_time_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**without_credentials(), "AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "SECRET"}.items():
        monkeypatch.setenv(name, value)
    endpoint = "http://127.0.0.1:8333"

    with closing(
        opened(INSTA_MEDIA_URL="s3://images/posts", INSTA_MEDIA_S3_ENDPOINT=endpoint, INSTA_MEDIA_URL_SECONDS="90")
    ) as store:
        assert isinstance(store, S3Blobs)
        url = store.url(FOLDER, "320.webp")
        assert url.startswith(f"{endpoint}/images/posts/{FOLDER}/320.webp?X-Amz-")
        assert "X-Amz-Expires=90&" in url
    with closing(opened(INSTA_MEDIA_URL="s3://images", INSTA_MEDIA_PUBLIC_URL="https://images.example.com")) as store:
        assert store.url(FOLDER, "320.webp") == f"https://images.example.com/{FOLDER}/320.webp"


def test_s3_without_credentials_is_told_by_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in without_credentials().items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(SettingError, match=r"^INSTA_MEDIA_URL=s3://images: .* AWS_ACCESS_KEY_ID"):
        opened(INSTA_MEDIA_URL="s3://images")


def test_s3_without_its_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "services.posts.media.s3_blobs")

    with pytest.raises(SettingError, match=r"^INSTA_MEDIA_URL=s3://images: .* pip install 'insta\[s3\]'$"):
        opened(INSTA_MEDIA_URL="s3://images")


def test_files_need_no_library_of_s3(tmp_path: Path) -> None:
    script = f"""
import pathlib, sys
from chassis.settings import Settings
from services.posts.media.blob_store import open_blob_store
open_blob_store(Settings(data=pathlib.Path({str(tmp_path)!r}))).close()
sys.exit("boto3" in sys.modules or "botocore" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
