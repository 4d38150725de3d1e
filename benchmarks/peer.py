"""The Django REST framework server of `peers/drf`: installed into a virtual environment of its own, filled by its own
seed command, and then what `data.Seed` has beyond that."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import psycopg

from benchmarks import data
from benchmarks.data import Seed
from benchmarks.sides import BUILD, DATABASE_URL

SOURCE = Path(__file__).parent / "peers" / "drf"
_DATABASE = "db.sqlite3"


def install() -> Path:
    """Install what it needs, if it is not there. Returns the folder of its programs."""
    environment = BUILD / "drf-venv"
    programs = environment.absolute() / "bin"
    done = environment / "installed"
    wanted = (SOURCE / "requirements.txt").read_text()
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", str(SOURCE / "requirements.txt")], check=True)
        done.write_text(wanted)
    return programs


def prepare(folder: Path, programs: Path, seed: Seed) -> None:
    """Make a folder with the server's code and its database, filled.

    What the seed command makes takes it a while: it is kept for the next time.
    """
    kept = BUILD / f"drf-{seed.users}-{seed.posts}-{_version()}"
    if not kept.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as making:
            made = Path(making) / "made"
            shutil.copytree(SOURCE, made)
            command = [str(programs / "python"), "manage.py", "seed", f"--users={seed.users}", f"--posts={seed.posts}"]
            subprocess.run(command, cwd=made, check=True, stdout=subprocess.DEVNULL)
            made.rename(kept)
    shutil.copytree(kept, folder)
    with closing(sqlite3.connect(folder / _DATABASE)) as database, database:
        database.executemany(
            "INSERT INTO app_postcomment (comment_text, created_at, updated_at, user_id, post_id)"
            " VALUES (?, datetime(), datetime(), ?, ?)",
            ((data.TEXT, user, post) for post, user in seed.discussion),
        )


def prepare_on_server(folder: Path, programs: Path, seed: Seed, url: str) -> None:
    """Make a folder with the server's code, and fill its database on a PostgreSQL server, which is empty."""
    shutil.copytree(SOURCE, folder)
    environment = {**os.environ, DATABASE_URL: url}
    # First what others refer to, which SQLite does not ask for.
    for command in (["migrate", "auth"], ["seed", f"--users={seed.users}", f"--posts={seed.posts}"]):
        manage = [str(programs / "python"), "manage.py", *command]
        subprocess.run(manage, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    with closing(psycopg.connect(url, autocommit=True)) as database, database.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO app_postcomment (comment_text, created_at, updated_at, user_id, post_id)"
            " VALUES (%s, now(), now(), %s, %s)",
            [(data.TEXT, user, post) for post, user in seed.discussion],
        )


def tokens(folder: Path, user_ids: Sequence[int]) -> list[str]:
    """What authorises these users, as a `Load` takes it."""
    made = _keys(user_ids)
    with closing(sqlite3.connect(folder / _DATABASE)) as database, database:
        database.executemany(
            "INSERT INTO authtoken_token (key, created, user_id) VALUES (?, datetime(), ?) ON CONFLICT DO NOTHING",
            ((key, user) for user, key in made.items()),
        )
        there: Mapping[int, str] = dict(database.execute("SELECT user_id, key FROM authtoken_token"))
    return [f"Token {there[user]}" for user in user_ids]


def tokens_on_server(url: str, user_ids: Sequence[int]) -> list[str]:
    """`tokens` of a database on a PostgreSQL server."""
    made = _keys(user_ids)
    with closing(psycopg.connect(url, autocommit=True)) as database:
        with database.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO authtoken_token (key, created, user_id) VALUES (%s, now(), %s) ON CONFLICT DO NOTHING",
                [(key, user) for user, key in made.items()],
            )
        there: Mapping[int, str] = dict(database.execute("SELECT user_id, key FROM authtoken_token").fetchall())
    return [f"Token {there[user]}" for user in user_ids]


def _keys(user_ids: Sequence[int]) -> dict[int, str]:
    return {user: hashlib.sha1(f"u{user}".encode()).hexdigest() for user in user_ids}


def _version() -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
