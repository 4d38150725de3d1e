"""Settings: a wrong one stops the start with a sentence that names it."""

from __future__ import annotations

import socket
from ipaddress import ip_network
from pathlib import Path

import pytest
from click.testing import CliRunner

from chassis import settings
from chassis.settings import DatabaseAddress, MediaBucket, MediaFolder, SettingError, Settings
from suite.main import main
from tests.running import environment, insta

ADDRESSES = (
    "",
    " ",
    "50051",
    ":50051",
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:65536",
    "127.0.0.1:http",
    "http://a:80",
    "::1:80",
)
SWITCHES = ("", "yes", "2", "on ")
WEB_ADDRESSES = (
    "",
    "images.example.com",
    "ftp://images.example.com",
    "https://",
    "https://:443",
    "https://images.example.com:0",
    "https://images.example.com:65536",
    "https://images.example.com:https",
    "https://images.example.com/?a=b",
    "https://images.example.com/#a",
    "https://images.example.com/a b",
    "https://[::1",
)
PLACES = (
    "",
    "media",
    "/media",
    "file",
    "file://host/media",
    "s3:images",
    "s3://",
    "s3://ab",
    "s3://Images",
    "s3://images_",
    "s3://images//posts",
    "s3://images/../posts",
    "s3://images/posts?region=eu-west-1",
    "http://127.0.0.1:8333/images",
)
# More of them: test_postgres.py.
DATABASES = ("", "users", "sqlite:///users.db", "postgresql://there", "postgresql://a@b@there/users")
CALLERS = (
    "",
    "reports",
    "=reports",
    "insta.posts.v1.PostService=",
    "insta.posts.v1.PostService=reports,",
    "insta.posts.v1.PostService=Reports",
    "insta.posts.v1.PostService=*",
    "insta.posts.v1.PostService/GetPost=reports",
    "insta.posts.v1.PostService=reports;insta.users.v1.UserService=reports",
    "insta.posts.v1.PostServices=reports",
    "insta.gateway.v1.PostService=reports",
)
WRONG = {
    "INSTA_DATA": ("",),
    "INSTA_USERS_DATABASE_URL": DATABASES,
    "INSTA_POSTS_DATABASE_URL": DATABASES,
    "INSTA_SOCIAL_DATABASE_URL": DATABASES,
    "INSTA_DATABASE_CONNECTIONS": ("", "3", "-1", "1001", "1.5", "many"),
    "INSTA_LISTEN": ADDRESSES,
    "INSTA_METRICS_LISTEN": ADDRESSES,
    "INSTA_MEDIA_LISTEN": ADDRESSES,
    "INSTA_USERS_ADDRESS": ("", " "),
    "INSTA_POSTS_ADDRESS": ("", " "),
    "INSTA_SOCIAL_ADDRESS": ("", " "),
    "INSTA_INSECURE_PLAINTEXT": SWITCHES,
    "INSTA_PEER_TLS": ("",),
    "INSTA_ALLOWED_CALLERS": CALLERS,
    "INSTA_TLS_CERTIFICATE": ("",),
    "INSTA_TLS_KEY": ("",),
    "INSTA_TRUSTED_PROXIES": ("", "proxy", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8;192.0.2.7"),
    "INSTA_REFLECTION": SWITCHES,
    "INSTA_MAX_CALLS": ("", "0", "-1", "1.5", "1e3", "many", "100001"),
    "INSTA_MAX_WAIT_MILLISECONDS": ("", "0", "-1", "0.5", "60001"),
    "INSTA_CONNECTION_AGE_SECONDS": ("", "-1", "86401", "1.5", "young"),
    "INSTA_DRAIN_SECONDS": ("", "-1", "601", "1.5", "soon"),
    "INSTA_LOGIN_THROTTLE": SWITCHES,
    "INSTA_MUTATIONS_PER_MINUTE": ("", "-1", "1000001", "1.5", "many"),
    "INSTA_BCRYPT_COST": ("", "3", "17", "cheap"),
    "INSTA_MEDIA_URL": PLACES,
    "INSTA_MEDIA_S3_ENDPOINT": WEB_ADDRESSES,
    "INSTA_MEDIA_PUBLIC_URL": WEB_ADDRESSES,
    "INSTA_MEDIA_URL_SECONDS": ("", "59", "604801", "1.5", "1h"),
    "INSTA_TRACE_RATIO": ("", "-0.1", "1.1", "1%", "1e-3", "nan", "half"),
    "INSTA_LOG_LEVEL": ("", "loud", "info "),
    "INSTA_LOG_PRETTY": SWITCHES,
}
RIGHT = {
    "INSTA_DATA": "/data",
    "INSTA_USERS_DATABASE_URL": "postgresql://insta:a%40b@db.example:5432/users?sslmode=verify-full",
    "INSTA_POSTS_DATABASE_URL": "postgres:///posts?host=/run/postgresql",
    "INSTA_SOCIAL_DATABASE_URL": "postgresql://[::1]/social",
    "INSTA_DATABASE_CONNECTIONS": "4",
    "INSTA_LISTEN": "[::1]:50051",
    "INSTA_METRICS_LISTEN": "localhost:0",
    "INSTA_MEDIA_LISTEN": "0.0.0.0:8080",
    "INSTA_USERS_ADDRESS": "dns:///users:50052",
    "INSTA_POSTS_ADDRESS": "posts:50053",
    "INSTA_SOCIAL_ADDRESS": "10.0.0.1:50054",
    "INSTA_INSECURE_PLAINTEXT": "True",
    "INSTA_PEER_TLS": "/tls/users",
    "INSTA_ALLOWED_CALLERS": "insta.posts.v1.PostService=reports, insta.users.v1.UserService=reports.example",
    "INSTA_TLS_CERTIFICATE": "tls.crt",
    "INSTA_TLS_KEY": "tls.key",
    "INSTA_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.7,2001:db8::/32",
    "INSTA_REFLECTION": "0",
    "INSTA_MAX_CALLS": "100000",
    "INSTA_MAX_WAIT_MILLISECONDS": "50",
    "INSTA_CONNECTION_AGE_SECONDS": "0",
    "INSTA_DRAIN_SECONDS": "0",
    "INSTA_LOGIN_THROTTLE": "0",
    "INSTA_MUTATIONS_PER_MINUTE": "0",
    "INSTA_BCRYPT_COST": "4",
    "INSTA_MEDIA_URL": "s3://images.example/posts/v1",
    "INSTA_MEDIA_S3_ENDPOINT": "http://127.0.0.1:8333",
    "INSTA_MEDIA_PUBLIC_URL": "https://images.example.com/posts/",
    "INSTA_MEDIA_URL_SECONDS": "604800",
    "INSTA_TRACE_RATIO": "0.25",
    "INSTA_LOG_LEVEL": "DEBUG",
    "INSTA_LOG_PRETTY": "1",
}


def test_every_setting_is_tested() -> None:
    names = {variable for variable, _, _ in settings.described()}

    assert names == set(WRONG) == set(RIGHT)


@pytest.mark.parametrize(("variable", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_setting_stops_the_command_with_a_sentence_that_names_it(
    variable: str, value: str, tmp_path: Path
) -> None:
    # A command that ends by itself, should the setting be taken for right.
    given = {**environment(tmp_path), variable: value}
    result = CliRunner().invoke(main, ["token", "nobody"], env=given)

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    shown = "***" if value in DATABASES and variable.endswith("_DATABASE_URL") else value
    assert result.output.startswith(f"Error: {variable}={shown}: must ")


def test_right_settings_are_taken() -> None:
    assert settings.from_environment(RIGHT) == Settings(
        data=Path("/data"),
        users_database_url=DatabaseAddress("postgresql://insta:a%40b@db.example:5432/users?sslmode=verify-full"),
        posts_database_url=DatabaseAddress("postgres:///posts?host=/run/postgresql"),
        social_database_url=DatabaseAddress("postgresql://[::1]/social"),
        database_connections=4,
        listen="[::1]:50051",
        metrics_listen="localhost:0",
        media_listen="0.0.0.0:8080",
        users_address="dns:///users:50052",
        posts_address="posts:50053",
        social_address="10.0.0.1:50054",
        insecure_plaintext=True,
        peer_tls=Path("/tls/users"),
        allowed_callers=(
            ("insta.posts.v1.PostService", "reports"),
            ("insta.users.v1.UserService", "reports.example"),
        ),
        tls_certificate=Path("tls.crt"),
        tls_key=Path("tls.key"),
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("192.0.2.7/32"), ip_network("2001:db8::/32")),
        reflection=False,
        max_calls=100_000,
        max_wait_milliseconds=50,
        connection_age_seconds=0,
        drain_seconds=0,
        login_throttle=False,
        mutations_per_minute=0,
        bcrypt_cost=4,
        media_url=MediaBucket("images.example", "posts/v1"),
        media_s3_endpoint="http://127.0.0.1:8333",
        media_public_url="https://images.example.com/posts",
        media_url_seconds=604_800,
        trace_ratio=0.25,
        log_level="debug",
        log_pretty=True,
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("file:", MediaFolder(None)),
        ("file:images", MediaFolder(Path("images"))),
        ("file:/var/images", MediaFolder(Path("/var/images"))),
        ("file:///var/images", MediaFolder(Path("/var/images"))),
        ("s3://images", MediaBucket("images", "")),
        ("s3://images/", MediaBucket("images", "")),
        ("s3://images/posts/", MediaBucket("images", "posts")),
    ],
)
def test_images_are_kept_in_a_folder_or_a_bucket(text: str, place: MediaFolder | MediaBucket) -> None:
    assert settings.from_environment({"INSTA_MEDIA_URL": text}).media_url == place


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("INSTA_MEDIA_URL", "s3://KEY:se/cr@t@images"),
        ("INSTA_MEDIA_S3_ENDPOINT", "https://KEY:se/cr@t@images.example.com"),
        ("INSTA_MEDIA_PUBLIC_URL", "https://KEY@images.example.com"),
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(variable: str, value: str) -> None:
    with pytest.raises(SettingError) as refused:
        settings.from_environment({variable: value})

    assert str(refused.value).startswith(f"{variable}=")
    assert "images" in str(refused.value)
    assert "KEY" not in str(refused.value).replace("AWS_ACCESS_KEY_ID", "")
    assert "t@" not in str(refused.value)


def test_without_settings_the_defaults_hold() -> None:
    assert settings.from_environment({"PATH": "/bin", "INSTA_UNKNOWN": "x"}) == Settings()


def test_the_first_wrong_setting_is_told() -> None:
    with pytest.raises(SettingError, match="INSTA_LISTEN"):
        settings.from_environment({"INSTA_LISTEN": "", "INSTA_BCRYPT_COST": ""})


@pytest.mark.sqlite
@pytest.mark.parametrize("command", [("up",), ("apart",)], ids=" ".join)
def test_a_data_folder_that_cannot_be_is_told_in_a_sentence(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = insta(*command, environment=environment(tmp_path / "file" / "data"))

    assert result.returncode == 1
    assert "INSTA_DATA" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "variable", ["INSTA_LISTEN", "INSTA_USERS_ADDRESS", "INSTA_POSTS_ADDRESS", "INSTA_SOCIAL_ADDRESS"]
)
def test_an_address_that_is_taken_is_told_by_its_setting(variable: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        result = insta("apart", environment=environment(tmp_path, **{variable: address}))

    assert result.returncode == 1
    assert f"{variable}=" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("value", ["users", "127.0.0.1:99999"])
def test_a_name_of_a_service_that_is_no_address_to_listen_on_is_told_by_its_setting(value: str, tmp_path: Path) -> None:
    result = insta("apart", environment=environment(tmp_path, INSTA_USERS_ADDRESS=value))

    assert result.returncode == 1
    assert "INSTA_USERS_ADDRESS=" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_address_of_a_database_as_a_text_has_no_password() -> None:
    address = DatabaseAddress("postgresql://insta:secret@there:5432/users?sslmode=require&password=another")

    for text in (str(address), repr(address), f"{address}"):
        assert "secret" not in text
        assert "another" not in text
    assert "there:5432/users" in str(address)
