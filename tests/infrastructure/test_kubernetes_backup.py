"""Backups, as rendered; the scripts of buckets and of Qdrant, against stand-ins for the store and the server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from components.kubernetes.backup import Backup, BackupArgs
from components.kubernetes.redis import SCRIPTS
from tests.support.components import Render, assert_hardened, assert_no_secret_in_the_open, assert_valid, rendering
from tests.support.loopback_http import LoopbackServer, QuietHandler

KEY = "the-key-of-qdrant"
IMAGE = "registry.example.com/slipway@sha256:" + "0" * 64
REDIS = {
    "host": "redis.agents",
    "pod_host": "redis-0.redis-nodes.agents",
    "secret_name": "redis-passwords",
    "data_claim": "data-redis-0",
}
QDRANT = {"url": "http://qdrant.agents:6333", "secret_name": "qdrant-key", "image": IMAGE}
BUCKET = {"name": "copies", "endpoint": "https://s3.example.com", "region": "eu", "secret_name": "bucket"}


@pytest.fixture
def render() -> Iterator[Render]:
    with rendering() as run:
        yield run


def backup(**changes: Any) -> Backup:
    args = {"namespace": "agents", "redis": REDIS, "qdrant": QDRANT, **changes}
    return Backup("backup", BackupArgs(**{key: value for key, value in args.items() if value is not None}))  # type: ignore[typeddict-item]


def steps(rendered: Any, name: str) -> list[dict[str, Any]]:
    """The containers of a CronJob's pod, in the order in which they run."""
    pod = rendered.only("CronJob", name)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def env(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container["env"]}


@pytest.mark.parametrize("changes", [{}, {"bucket": BUCKET}, {"redis": {**REDIS, "tls_secret_name": "redis-tls"}}])
def test_every_way_is_hardened(render: Render, changes: dict[str, Any]) -> None:
    rendered = render(lambda: backup(**changes))
    assert_hardened(rendered)
    assert_valid(rendered)
    assert_no_secret_in_the_open(rendered)


def test_copies_are_made_by_the_clock_and_restores_only_by_a_person(render: Render) -> None:
    """A restore that ran by itself would be a loss of data."""
    rendered = render(backup)
    suspended = {one["metadata"]["name"]: one["spec"]["suspend"] for one in rendered.of("CronJob")}
    assert suspended == {
        "backup-redis": False,
        "backup-redis-restore": True,
        "backup-qdrant": False,
        "backup-qdrant-restore": True,
    }
    for one in rendered.of("CronJob"):
        assert one["spec"]["concurrencyPolicy"] == "Forbid"
        attempts = one["spec"]["jobTemplate"]["spec"]["backoffLimit"]
        assert attempts == (0 if one["spec"]["suspend"] else 2)
    assert rendered.outputs == {
        "jobs": {"redis": "backup-redis", "qdrant": "backup-qdrant"},
        "restores": {"redis": "backup-redis-restore", "qdrant": "backup-qdrant-restore"},
    }


def test_a_restore_asks_the_pod_itself_whether_redis_runs(render: Render) -> None:
    """The ordinary name leads nowhere while Redis is not ready, though it runs and writes."""
    rendered = render(backup)
    assert env(steps(rendered, "backup-redis-restore")[0])["REDIS_HOST"] == REDIS["pod_host"]
    assert env(steps(rendered, "backup-redis")[0])["REDIS_HOST"] == REDIS["host"]
    mounted = {mount["name"] for mount in steps(rendered, "backup-redis-restore")[0]["volumeMounts"]}
    assert {"data", "copies"} <= mounted
    assert "data" not in {mount["name"] for mount in steps(rendered, "backup-redis")[0]["volumeMounts"]}


def test_a_disk_keeps_the_copies_when_all_else_goes(render: Render) -> None:
    rendered = render(lambda: backup(disk={"size": "50Gi"}))
    claim = rendered.only("PersistentVolumeClaim")
    assert claim["spec"]["resources"]["requests"]["storage"] == "50Gi"
    assert len(steps(rendered, "backup-redis")) == 1


def test_with_a_bucket_copies_go_there_after_and_come_from_there_before(render: Render) -> None:
    rendered = render(lambda: backup(bucket=BUCKET))
    assert rendered.of("PersistentVolumeClaim") == []
    assert [one["name"] for one in steps(rendered, "backup-redis")] == ["save", "bucket-put"]
    assert [one["name"] for one in steps(rendered, "backup-redis-restore")] == ["bucket-get", "restore"]
    put = env(steps(rendered, "backup-redis")[1])
    assert put["REMOTE"] == "bucket:copies/backup"
    assert put["AWS_SHARED_CREDENTIALS_FILE"] == "/run/bucket/credentials"
    assert put["RCLONE_CONFIG_BUCKET_ENDPOINT"] == "https://s3.example.com"
    assert re.match(put["PATTERN"], "redis-20260102T030405Z.rdb")
    assert not re.match(put["PATTERN"], "qdrant-20260102T030405Z.tar"), "each removes its own old copies only"


def test_the_name_of_a_copy_can_be_said_to_every_step(render: Render) -> None:
    """`kubectl set env BACKUP=…` writes into each container; one that had no such variable is changed, too."""
    rendered = render(lambda: backup(bucket=BUCKET))
    for name in ("backup-redis-restore", "backup-qdrant-restore"):
        assert all("BACKUP" in env(step) for step in steps(rendered, name))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"redis": None, "qdrant": None}, "redis, qdrant"),
        ({"disk": {}, "bucket": BUCKET}, "disk, bucket"),
        ({"keep": 0}, "keep"),
        ({"schedule": "daily"}, "schedule"),
    ],
)
def test_a_wrong_input_is_named_at_construction(render: Render, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        render(lambda: backup(**changes))


RCLONE = """#!/bin/sh
# The four calls of rclone that the scripts make, on folders: `bucket:NAME` is $BUCKETS/NAME.
path() { case $1 in bucket:*) echo "$BUCKETS/${1#bucket:}" ;; *) echo "$1" ;; esac; }
case $1 in
  copy) mkdir -p "$(path "$4")" && cp "$3"/* "$(path "$4")" ;;
  copyto) cp "$(path "$2")" "$(path "$3")" ;;
  lsf) ls "$(path "$3")" ;;
  deletefile) rm "$(path "$2")" ;;
  *) echo "not foreseen: $*" >&2; exit 64 ;;
esac
"""


class Bucket:
    """A bucket, and the two scripts as the Jobs run them."""

    def __init__(self, folder: Path) -> None:
        self.there, self.copies = folder / "bucket" / "backup", folder / "copies"
        self.there.mkdir(parents=True)
        self.copies.mkdir()
        (folder / "rclone").write_text(RCLONE)
        (folder / "rclone").chmod(0o755)
        self._env = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "BUCKETS": str(folder / "bucket"),
            "REMOTE": "bucket:backup",
            "FOLDER": str(self.copies),
            "PATTERN": r"^redis-[0-9]{8}T[0-9]{6}Z\.rdb$",
        }

    def run(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(SCRIPTS / script)]
        return subprocess.run(
            command, env={**self._env, **env}, capture_output=True, text=True, timeout=30, check=False
        )


def copy_of(day: int) -> str:
    return f"redis-2026010{day}T000000Z.rdb"


def test_a_copy_goes_to_the_bucket_and_old_ones_go(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path)
    others = ["qdrant-20200101T000000Z.tar", "notes.txt"]
    for name in [copy_of(1), copy_of(2), copy_of(3), *others]:
        (bucket.there / name).write_text("old")
    (bucket.copies / copy_of(4)).write_text("new")
    done = bucket.run("bucket-put.sh", KEEP="2")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in bucket.there.iterdir()) == sorted([copy_of(3), copy_of(4), *others])


@pytest.mark.parametrize(("wanted", "fetched"), [("", copy_of(3)), (copy_of(1), copy_of(1))])
def test_the_newest_copy_or_a_named_one_is_fetched(tmp_path: Path, wanted: str, fetched: str) -> None:
    bucket = Bucket(tmp_path)
    for name in (copy_of(1), copy_of(3), copy_of(2), "redis-by-hand.rdb"):
        (bucket.there / name).write_text(name)
    assert bucket.run("bucket-get.sh", BACKUP=wanted).returncode == 0
    assert [path.read_text() for path in bucket.copies.iterdir()] == [fetched]


def test_an_empty_bucket_is_said_and_nothing_is_restored(tmp_path: Path) -> None:
    failed = Bucket(tmp_path).run("bucket-get.sh", BACKUP="")
    assert failed.returncode == 1
    assert "there is no copy" in failed.stderr


class FakeQdrant(LoopbackServer):
    """Collections as bytes, behind the calls of https://api.qdrant.tech/api-reference/snapshots/."""

    def __init__(self) -> None:
        self.collections: dict[str, bytes] = {}
        self.snapshots: dict[str, bytes] = {}
        fake = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status: int, body: bytes = b"{}") -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = self.path.partition("?")[0]
                parts = [unquote(part) for part in path.strip("/").split("/")]
                if self.headers.get("api-key") != KEY:
                    return self.answer(401)
                match (self.command, *parts):
                    case ("GET", "collections"):
                        listed = [{"name": name} for name in fake.collections]
                        return self.answer(200, json.dumps({"result": {"collections": listed}}).encode())
                    case ("POST", "collections", name, "snapshots"):
                        fake.snapshots[f"{name}-1.snapshot"] = fake.collections[name]
                        return self.answer(200, json.dumps({"result": {"name": f"{name}-1.snapshot"}}).encode())
                    case ("GET", "collections", _, "snapshots", made):
                        return self.answer(200, fake.snapshots[made])
                    case ("DELETE", "collections", _, "snapshots", made):
                        del fake.snapshots[made]
                        return self.answer(200)
                    case ("POST", "collections", name, "snapshots", "upload"):
                        assert "priority=snapshot" in self.path
                        boundary = self.headers["content-type"].partition("boundary=")[2].encode()
                        _, part, end = body.split(b"--" + boundary)
                        assert end == b"--\r\n"
                        fake.collections[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
                        return self.answer(200)
                return self.answer(404)

            do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the library's names

        super().__init__(Handler)


@pytest.fixture
def qdrant() -> Iterator[FakeQdrant]:
    fake = FakeQdrant()
    yield fake
    fake.close()


def program(
    qdrant: FakeQdrant, folder: Path, command: str, *, key: str = KEY, keep: int = 3, backup: str = ""
) -> subprocess.CompletedProcess[str]:
    (folder / "key").write_text(key + "\n")
    (folder / "copies").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPTS / "qdrant_backup.py"), command],
        env={
            "PATH": os.environ["PATH"],
            "QDRANT_URL": qdrant.url,
            "API_KEY_FILE": str(folder / "key"),
            "FOLDER": str(folder / "copies"),
            "KEEP": str(keep),
            "BACKUP": backup,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_collections_come_back_as_they_were(qdrant: FakeQdrant, tmp_path: Path) -> None:
    big = os.urandom(3_000_000)
    before = {"documents": big, "a name/with ümlaut": b"--\r\n\x00", "empty": b""}
    qdrant.collections = dict(before)
    saved = program(qdrant, tmp_path, "save")
    assert saved.returncode == 0, saved.stderr
    assert qdrant.snapshots == {}, "snapshots must not fill Qdrant's own disk"
    qdrant.collections = {"documents": b"lost"}
    restored = program(qdrant, tmp_path, "restore")
    assert restored.returncode == 0, restored.stderr
    assert qdrant.collections == before


def test_a_failed_copy_fails_and_leaves_nothing(qdrant: FakeQdrant, tmp_path: Path) -> None:
    """A Job that seems to have worked is worse than none; its log must not tell the key."""
    qdrant.collections = {"documents": b"x"}
    failed = program(qdrant, tmp_path, "save", key="not-the-key")
    assert failed.returncode == 1
    assert "401" in failed.stderr
    assert "not-the-key" not in failed.stdout + failed.stderr
    assert list((tmp_path / "copies").iterdir()) == []


def test_only_the_newest_archives_stay(qdrant: FakeQdrant, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    old = [f"qdrant-2020010{day}T000000Z.tar" for day in range(1, 5)]
    for name in [*old, "redis-20200101T000000Z.rdb"]:
        (copies / name).write_bytes(b"")
    assert program(qdrant, tmp_path, "save", keep=2).returncode == 0
    left = sorted(path.name for path in copies.iterdir())
    assert len(left) == 3
    assert old[-1] in left
    assert "redis-20200101T000000Z.rdb" in left


def test_an_archive_that_is_not_there_is_named(qdrant: FakeQdrant, tmp_path: Path) -> None:
    failed = program(qdrant, tmp_path, "restore", backup="qdrant-1.tar")
    assert failed.returncode == 1
    assert "there is no archive qdrant-1.tar" in failed.stderr


def test_the_page_names_what_a_stack_makes(render: Render) -> None:
    """Whoever restores is in a hurry: each name on the page must be there."""
    page = (Path(__file__).parents[2] / "docs" / "backup.md").read_text()
    rendered = render(backup)
    there = {one["metadata"].get("name") for one in rendered.objects}
    named = set(re.findall(r"cronjob/([a-z-]+)", page)) | set(re.findall(r"`(backup-[a-z-]+)`", page))
    assert {"backup-redis", "backup-redis-restore", "backup-qdrant-restore", "backup-copies"} <= named
    assert named <= there
    assert re.findall(r"data-redis-\d", page) == [REDIS["data_claim"]]
