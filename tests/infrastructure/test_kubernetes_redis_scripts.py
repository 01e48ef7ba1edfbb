"""The scripts of the component Redis, run for real: users, probes, backup and restore."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from components.kubernetes.redis import SCRIPTS
from components.kubernetes.redis_users import users
from tests.support.guarded_valkey import PASSWORDS, GuardedValkey
from tests.support.redis_cli import path_with_redis_cli
from tests.support.valkey import ValkeyServer, free_port

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a script with exactly the variables it names, and redis-cli on its PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    path = path_with_redis_cli(programs)

    def script(name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(SCRIPTS / name), *arguments],
            env={"PATH": path, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return script


@pytest.fixture
def valkey() -> Iterator[GuardedValkey]:
    with GuardedValkey(aof=True) as server:
        yield server


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Template, passwords and target of redis-users.sh."""
    found = {name: tmp_path / name for name in ("passwords", "target")}
    for folder in found.values():
        folder.mkdir()
    for user, password in PASSWORDS.items():
        (found["passwords"] / user).write_text(password)
    (tmp_path / "users.acl").write_text(users(exporter=True))
    return {**found, "template": tmp_path / "users.acl"}


def write_users(run: Run, folders: dict[str, Path]) -> subprocess.CompletedProcess[str]:
    return run(
        "redis-users.sh",
        TEMPLATE=str(folders["template"]),
        PASSWORDS=str(folders["passwords"]),
        TARGET=str(folders["target"]),
        EXPORTER_ADDRESS="redis://127.0.0.1:6379",
    )


def test_users_log_in_with_the_passwords_of_the_secret(run: Run, folders: dict[str, Path]) -> None:
    """The file that the pod's first container writes is what a server takes."""
    (folders["passwords"] / "app").write_text("the new one\nthe old one\n")  # while it is being changed, both open
    written = write_users(run, folders)
    assert written.returncode == 0, written.stderr
    acl = (folders["target"] / "users.acl").read_text()
    assert "@" not in acl.replace("-@all", "")
    assert not [password for password in (*PASSWORDS.values(), "the new one", "the old one") if password in acl]
    assert (folders["target"] / "users.acl").stat().st_mode & 0o077 == 0, "others could read the hashes"
    with ValkeyServer() as server, redis.Redis.from_url(server.url) as admin:
        for line in acl.splitlines()[1:]:
            admin.execute_command("ACL", "SETUSER", *line.split()[1:])
        for password in ("the new one", "the old one"):
            with redis.Redis(port=server.port, username="app", password=password) as app:
                assert app.ping()
        with (
            redis.Redis(port=server.port, username="app", password="another") as app,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            app.ping()
    assert (folders["target"] / "exporter.json").read_text() == (
        f'{{"redis://127.0.0.1:6379": "{PASSWORDS["exporter"]}"}}\n'
    )


def test_a_real_server_takes_the_file_and_lets_nobody_else_in(run: Run, folders: dict[str, Path]) -> None:
    """A mistake in the file would keep Redis from starting; a `default` that is on would open it to everybody."""
    assert write_users(run, folders).returncode == 0
    acl = folders["target"] / "users.acl"
    written = acl.read_text()
    acl.write_text("")
    with ValkeyServer(options=("--aclfile", str(acl))) as server:
        acl.write_text(written)
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("ACL", "LOAD")
        with redis.Redis.from_url(server.url) as stranger, pytest.raises(redis.exceptions.AuthenticationError):
            stranger.ping()
        with redis.Redis(port=server.port, username="app", password=PASSWORDS["app"]) as app:
            assert app.set("{agent-tasks}:probe", "1")


@pytest.mark.parametrize("missing", ["app", "backup"])
def test_a_user_without_a_password_stops_the_start(run: Run, folders: dict[str, Path], missing: str) -> None:
    """An empty password would open the door; a missing one is a mistake in the Secret, and is named."""
    (folders["passwords"] / missing).write_text("")
    failed = write_users(run, folders)
    assert failed.returncode == 1
    assert f"no password for the user {missing}" in failed.stderr


def test_a_serving_redis_is_alive_and_ready(run: Run, valkey: GuardedValkey) -> None:
    for question in ("alive", "ready"):
        answered = run("redis-probe.sh", question, REDIS_PORT=str(valkey.port))
        assert answered.returncode == 0, answered.stderr


def test_a_loading_redis_is_alive_and_not_ready(run: Run, tmp_path: Path) -> None:
    """Reading a large log takes minutes; a restart would begin it anew."""
    acl = tmp_path / "test.acl"
    probe = next(line for line in users(exporter=False).splitlines() if line.startswith("user probe "))
    acl.write_text(f"user default on nopass ~* &* +@all\n{probe}\n")
    # Each key takes 1 ms to read, and after each kB the server looks up and answers.
    slow = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    with ValkeyServer(aof=True, options=("--aclfile", str(acl), *slow)) as server:
        with redis.Redis.from_url(server.url) as admin:
            with admin.pipeline(transaction=False) as pipe:
                for number in range(4_000):
                    pipe.set(f"key-{number}", os.urandom(100))
                pipe.execute()
            admin.bgrewriteaof()  # a log's base is read in smaller steps than what follows it
            while admin.info("persistence")["aof_rewrite_in_progress"]:
                time.sleep(0.05)
        server.stop()
        starting = threading.Thread(target=server.start)
        starting.start()
        seen = []
        while starting.is_alive():
            ready, alive = (run("redis-probe.sh", what, REDIS_PORT=str(server.port)) for what in ("ready", "alive"))
            if "LOADING" in ready.stderr:
                seen.append((ready.returncode, alive.returncode))
        starting.join()
        assert seen, "the server was never seen loading"
        assert set(seen) == {(1, 0)}
        assert run("redis-probe.sh", "ready", REDIS_PORT=str(server.port)).returncode == 0


def test_a_dead_redis_is_neither(run: Run) -> None:
    for question in ("alive", "ready"):
        answered = run("redis-probe.sh", question, REDIS_PORT=str(free_port()))
        assert answered.returncode == 1
        assert "redis-probe:" in answered.stderr


class Backups:
    """A folder of copies, and the two scripts as the Jobs run them."""

    def __init__(self, run: Run, server: GuardedValkey, folder: Path) -> None:
        self._run, self._server = run, server
        self.copies, self._password = folder / "copies", folder / "password"
        self.copies.mkdir()
        self._password.write_text(PASSWORDS["backup"])

    def save(self, keep: int = 3, **env: str) -> subprocess.CompletedProcess[str]:
        return self._run(
            "redis-backup.sh",
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=str(self._server.port),
            PASSWORD_FILE=str(self._password),
            FOLDER=str(self.copies),
            KEEP=str(keep),
            **env,
        )

    def restore(self, backup: str = "") -> subprocess.CompletedProcess[str]:
        return self._run(
            "redis-restore.sh",
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=str(self._server.port),
            FOLDER=str(self.copies),
            BACKUP=backup,
            DATA=str(self._server.folder),
        )

    def names(self) -> list[str]:
        return sorted(path.name for path in self.copies.iterdir())


@pytest.fixture
def backups(run: Run, valkey: GuardedValkey, tmp_path: Path) -> Backups:
    return Backups(run, valkey, tmp_path)


def contents(server: GuardedValkey) -> dict[bytes, bytes | None]:
    """Every key with all that Redis knows of it."""
    with redis.Redis.from_url(server.admin_url) as admin:
        return {key: admin.dump(key) for key in sorted(admin.keys("*"))}


def fill(server: GuardedValkey) -> None:
    """One key of each type that the service uses."""
    with redis.Redis.from_url(server.admin_url) as admin:
        admin.zadd("agent-tasks", {"run-1": 1, "run-2": 2})
        admin.hset("{agent-tasks}:run:1", mapping={"status": "running", "bytes": b"\x00\xff"})
        admin.xadd("{agent-tasks}:events:1", {"event": "token"})
        admin.rpush("{agent-tasks}:thread:1:wait", "a", "b")
        admin.sadd("{agent-tasks}:tenants", "acme")
        admin.set("{agent-tasks}:first-key", "k", ex=3_600)


def test_what_was_wiped_comes_back_and_stays(backups: Backups, valkey: GuardedValkey) -> None:
    """Backup, loss of the disk, restore, restart, crash: the data are those of the copy."""
    fill(valkey)
    before = contents(valkey)
    saved = backups.save()
    assert saved.returncode == 0, saved.stderr
    with redis.Redis.from_url(valkey.admin_url) as admin:
        admin.flushall()
        admin.set("written-after-the-loss", "1")
    valkey.stop()
    restored = backups.restore()
    assert restored.returncode == 0, restored.stderr
    valkey.start()
    assert contents(valkey) == before
    with redis.Redis.from_url(valkey.url) as app:
        app.zadd("agent-tasks", {"run-3": 3})  # goes on in a new log
    valkey.stop()
    valkey.start()
    with redis.Redis.from_url(valkey.url) as app:
        assert app.zrange("agent-tasks", 0, -1) == [b"run-1", b"run-2", b"run-3"]


def test_what_was_there_before_a_restore_is_kept_aside(backups: Backups, valkey: GuardedValkey) -> None:
    """Whoever restores the wrong copy can go back."""
    fill(valkey)
    assert backups.save().returncode == 0
    with redis.Redis.from_url(valkey.admin_url) as admin:
        admin.set("written-since", "1")
    valkey.stop()
    assert backups.restore().returncode == 0
    aside = [path for path in valkey.folder.iterdir() if path.name.startswith("appendonlydir.before-")]
    assert len(aside) == 1
    assert any(b"written-since" in path.read_bytes() for path in aside[0].iterdir())


def test_a_restore_under_a_running_redis_is_refused(backups: Backups, valkey: GuardedValkey) -> None:
    """It would go on writing its old log, and the two would be mixed."""
    fill(valkey)
    assert backups.save().returncode == 0
    refused = backups.restore()
    assert refused.returncode == 1
    assert "scale its StatefulSet to 0" in refused.stderr
    valkey.freeze()
    try:
        assert backups.restore().returncode == 1, "one that hangs is not one that has ended"
    finally:
        valkey.thaw()
    assert len(contents(valkey)) == 6


def test_only_the_newest_copies_stay_and_nothing_else_is_touched(backups: Backups, valkey: GuardedValkey) -> None:
    fill(valkey)
    old = [f"redis-2020010{day}T000000Z.rdb" for day in range(1, 6)]
    for name in [*old, "notes.txt", "redis-by-hand.rdb"]:
        (backups.copies / name).write_text("x")
    assert backups.save(keep=3).returncode == 0
    new = next(name for name in backups.names() if name > "redis-2021" and name.startswith("redis-2"))
    assert backups.names() == sorted(["notes.txt", "redis-by-hand.rdb", old[3], old[4], new])


def test_a_failed_backup_fails_and_leaves_no_copy(backups: Backups, valkey: GuardedValkey) -> None:
    """A Job that seems to have worked is worse than none."""
    with redis.Redis.from_url(valkey.admin_url) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "off")  # as it is in the component
    (backups.copies.parent / "password").write_text("not the password")
    refused = backups.save()
    assert refused.returncode != 0
    assert backups.names() == []
    assert "not the password" not in refused.stdout + refused.stderr
    valkey.stop()
    assert backups.save().returncode != 0
    assert backups.names() == []


@pytest.mark.parametrize(
    ("backup", "told"), [("", "there is no copy"), ("redis-1.rdb", "there is no copy redis-1.rdb")]
)
def test_a_copy_that_is_not_there_changes_nothing(
    backups: Backups, valkey: GuardedValkey, backup: str, told: str
) -> None:
    fill(valkey)
    before = contents(valkey)
    valkey.stop()
    failed = backups.restore(backup)
    assert failed.returncode == 1
    assert told in failed.stderr
    valkey.start()
    assert contents(valkey) == before
