"""What docker-compose.scale.yml adds: a database server that knows services, S3, and replicas one of which may die."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from insta.gateway.v1 import media_pb2, posts_pb2
from tests.compose.containers import PARTS, Containers
from tests.end_to_end.media.calls import finish_upload, post_form, start_upload
from tests.http import ask
from tests.people import People, small_picture, until
from tests.running import at
from tests.suite.killing import Writers
from tests.suite.rolling import Clients

pytestmark = [pytest.mark.timeout(3600), pytest.mark.parametrize("containers", ["scale"], indirect=True)]

# Within a container: what the server says to a role that wants into a database, and what it may do beyond that.
_CONNECT = """
import sys
import psycopg
role, database, folder, how = sys.argv[1:]
options = {"sslmode": how}
if how != "disable":
    options |= {"sslrootcert": f"{folder}/ca.crt", "sslcert": f"{folder}/tls.crt", "sslkey": f"{folder}/tls.key"}
try:
    with psycopg.connect(host="database", user=role, dbname=database, connect_timeout=10, **options) as connection:
        rights = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication"
        query = f"SELECT rolname, {rights} FROM pg_roles WHERE rolname = current_user"
        print("in", *connection.execute(query).fetchone())
except psycopg.OperationalError as refused:
    print("out", refused)
"""

# Within a container: what becomes of a connection.
_REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
    print("reached")
except OSError:
    print("not reached")
"""

# Within a container: how many calls of others it has answered, without what all ask each other anyway.
_CALLS = r"""
import re, urllib.request
text = urllib.request.urlopen("http://127.0.0.1:9090/metrics").read().decode()
counts = re.findall(r'^insta_calls_total\{code="OK",method="insta[^"]*/(?!ReadEvents)\w+"\} (\S+)$', text, re.MULTILINE)
print(int(sum(map(float, counts))))
"""


@pytest.mark.parametrize("service", ["users", "posts", "social"])
def test_a_service_gets_into_its_own_database_and_can_do_no_more_there_than_own_it(
    service: str, containers: Containers
) -> None:
    folder = f"/etc/insta/tls/{service}"

    said = containers.python_in(service, _CONNECT, service, service, folder, "verify-full")

    assert said == f"in {service} False"


@pytest.mark.parametrize(
    ("service", "role", "database", "how"),
    [
        # To the database of another, as itself and as the other.
        ("users", "users", "posts", "verify-full"),
        ("users", "posts", "posts", "verify-full"),
        # As the superuser, in whatever database.
        ("users", "insta", "postgres", "verify-full"),
        ("users", "insta", "insta", "verify-full"),
        # Who has a certificate, but no database.
        ("gateway", "users", "users", "verify-full"),
        ("gateway", "gateway", "gateway", "verify-full"),
        # In plaintext, where nobody can prove who they are.
        ("users", "users", "users", "disable"),
    ],
)
def test_nobody_gets_into_another_database(
    service: str, role: str, database: str, how: str, containers: Containers
) -> None:
    said = containers.python_in(service, _CONNECT, role, database, f"/etc/insta/tls/{service}", how)

    assert said.startswith("out"), said
    assert any(reason in said for reason in ("no pg_hba.conf entry", "certificate authentication failed")), said


def test_the_images_are_out_of_reach_of_parts_that_have_nothing_to_do_with_them(containers: Containers) -> None:
    reached = {part: containers.python_in(part, _REACH, "s3", "8080") for part in PARTS}

    assert reached == {**dict.fromkeys(PARTS, "not reached"), "posts": "reached"}


async def test_a_file_is_uploaded_straight_to_the_bucket_with_a_signed_form_only(containers: Containers) -> None:
    people = People(containers.address)
    ana = await people.join()
    data = small_picture()
    started = await start_upload(ana, data)
    # Its port is 8080 unless another is published, as here.
    assert started.url == "http://s3.localhost:8080/images"
    started.url = f"http://{containers.images}/images"

    forged = post_form(started, data, **{"x-amz-signature": "0" * 64})
    unsigned = post_form(media_pb2.StartUploadResponse(url=started.url, fields={"key": started.fields["key"]}), data)
    posted = post_form(started, data)

    assert (forged.status, posted.status) == (403, 204)
    assert unsigned.status in (400, 403)
    key = started.fields["key"]
    # What nobody has looked at, nobody is shown: the bucket itself is not to be had.
    for path in (
        f"/images/{key}",
        f"/media/{key}",
        f"/media/../images/{key}",
        f"/media/%2e%2e/images/{key}",
        "/images",
    ):
        assert ask(containers.images, path).status in (404, 405), path
    assert (await finish_upload(ana, started)).width == 4
    await people.channel.close()


async def test_a_replica_of_each_part_is_killed_under_load_and_no_client_notices(containers: Containers) -> None:
    suite = at(containers.address)
    people = People(suite.address)
    writers = _Witness(suite, people, seed=6)
    await writers.start()
    clients = Clients(suite, people, writers)
    await clients.start()

    async def idle() -> list[str]:
        each = [one for part in PARTS for one in containers.of(part)]
        counts = [int(await asyncio.to_thread(containers.run_in, one, "python", "-c", _CALLS)) for one in each]
        return [f"{one.service} {one.id}" for one, count in zip(each, counts, strict=True) if not count]

    # One that came up after the others is called once their connections have had their time, of 300 seconds.
    await until(idle, [], seconds=400)
    for part in PARTS:
        victim, _ = containers.of(part)
        await writers.go_on(100)
        await containers.kill(victim)
        await containers.back(victim)
        await writers.go_on(100)

    await clients.stop()
    await writers.stop()
    print(f"{clients.calls} calls answered, none failed; the longest took {clients.longest:.1f} s")  # noqa: T201
    assert clients.errors == {}
    await writers.see(clients)
    await people.channel.close()
    containers.up()
    audited = containers.compose("run", "--rm", "-T", "operator", "audit")
    assert "posts" in audited


class _Witness(Writers):
    """Writers who ask the suite itself whether what it answered is so."""

    async def see(self, others: Clients) -> None:
        """Every post is there, with the comments and the likes that it got, each counted once.

        Args:
            others: Whose likes count as well.
        """
        likes = Counter(post_id for _, post_id in self._likes | others.likes)
        comments = Counter(post_id for _, post_id, _ in self._comments.values())
        for post_id, (author_id, title) in self._posts.items():
            seen = await self.persons[0].see(posts_pb2.Post(id=post_id))
            assert (seen.author.id, seen.title) == (author_id, title)
            assert (seen.like_count, seen.comment_count) == (likes[post_id], comments[post_id])
