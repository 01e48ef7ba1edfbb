"""The life of supervised programs, for real: a supervisord per test, tiny HTTP servers as programs."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from components.local import process
from components.local.errors import LocalError, StartFailed
from components.local.supervisor import Supervisor
from tests.infrastructure.conftest import SpecFactory, alive, ask, seen, until


def test_a_created_program_is_healthy_when_create_returns(server_spec: SpecFactory) -> None:
    """Whatever depends on it may use it at once."""
    running = process.create(server_spec())
    assert ask(running["port"])["pid"] == running["pid"]
    assert running["status"] == "RUNNING"


def test_secrets_are_in_no_argument_list_and_no_supervisor_file(server_spec: SpecFactory, stack_folder: Path) -> None:
    """Arguments are visible to every user of the machine; only the program's own spec, mode 0600, holds secrets."""
    running = process.create(server_spec())
    assert "TOKEN" in ask(running["port"])["env"]
    assert b"hush-hush" not in Path(f"/proc/{running['pid']}/cmdline").read_bytes()
    holders = [path for path in stack_folder.rglob("*") if path.is_file() and b"hush-hush" in path.read_bytes()]
    assert [path.parent.name for path in holders] == ["specs"]
    assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(stack_folder.stat().st_mode) == 0o700


def test_a_program_sees_nothing_of_the_environment_pulumi_ran_in(
    server_spec: SpecFactory, stack_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The passphrase of the state must not leak into the agent, which runs tools."""
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "secret")
    Supervisor(stack_folder).end(keep_data=True)
    Supervisor(stack_folder).start()
    seen = ask(process.create(server_spec())["port"])["env"]
    assert not [name for name in seen if name.startswith(("PULUMI", "SUPERVISOR", "SLIPWAY"))]
    assert "PATH" in seen


def test_a_program_that_ends_at_once_fails_with_its_last_words_and_leaves_nothing(
    server_spec: SpecFactory, stack_folder: Path
) -> None:
    """The reader learns what to mend; a corrected start then succeeds."""
    with pytest.raises(StartFailed) as failed:
        process.create(server_spec(colour="broken"))
    text = str(failed.value)
    assert "web ended while it started" in text
    assert "no such colour: broken" in text
    assert failed.value.log.is_file(), "the log it names must be there"
    assert str(failed.value.log) in text
    assert "hush-hush" not in text
    assert list((stack_folder / "programs").iterdir()) == []
    assert list((stack_folder / "specs").iterdir()) == []
    assert process.create(server_spec(colour="green"))["status"] == "RUNNING"


def test_a_program_that_never_becomes_healthy_is_ended(server_spec: SpecFactory, stack_folder: Path) -> None:
    """It answers 503: it runs, but nobody may count on it."""
    with pytest.raises(StartFailed, match=r"not healthy within 1 s: it answers /health with 503"):
        process.create(server_spec(colour="sick", start_seconds=1.0))
    assert list((stack_folder / "programs").iterdir()) == []


def test_a_killed_program_is_started_again_by_the_supervisor(server_spec: SpecFactory, stack_folder: Path) -> None:
    """A crash needs nobody; `read` shows the new pid."""
    running = process.create(server_spec())
    os.kill(running["pid"], signal.SIGKILL)
    until(
        lambda: (
            (now := process.read(running, str(stack_folder)))["status"] == "RUNNING"
            and now["pid"] not in (0, running["pid"])
        ),
        "another pid is running",
    )
    until(lambda: _answers(running["port"]), "it answers on its old port")


def test_a_stopped_program_is_noticed_and_repaired_on_its_port(server_spec: SpecFactory, stack_folder: Path) -> None:
    running = process.create(server_spec())
    Supervisor(stack_folder).stop_program(running["program"], grace_seconds=5)
    assert process.read(running, str(stack_folder))["status"] == "STOPPED"
    assert not process.runs(running, str(stack_folder))
    repaired = process.update(server_spec(), running)
    assert (repaired["program"], repaired["port"]) == (running["program"], running["port"])
    assert ask(running["port"])["pid"] == repaired["pid"]


def test_programs_end_with_a_killed_supervisor_and_come_back_with_it(
    server_spec: SpecFactory, stack_folder: Path
) -> None:
    """No orphan, whatever happens to the supervisor; and a reboot, which this resembles, is repaired."""
    running = process.create(server_spec())
    supervisor = Supervisor(stack_folder)
    os.kill(supervisor.pid(), signal.SIGKILL)
    until(lambda: not _answers(running["port"]), "the program ended by itself")
    assert process.read(running, str(stack_folder))["status"] == "GONE"
    supervisor.start()
    assert process.read(running, str(stack_folder))["status"] in ("GONE", "STOPPED")
    process.update(server_spec(), running)
    assert ask(running["port"])["colour"] == "red"


def test_a_restart_touches_only_its_own_program(server_spec: SpecFactory) -> None:
    """A changed environment restarts just what changed."""
    one = process.create(server_spec("one", update="restart"))
    two = process.create(server_spec("two", update="restart"))
    changed = process.update(server_spec("one", "blue", update="restart"), one)
    assert ask(changed["port"])["colour"] == "blue"
    assert changed["pid"] != one["pid"]
    assert ask(two["port"])["pid"] == two["pid"]


def test_a_program_beside_has_a_name_and_port_of_its_own(server_spec: SpecFactory) -> None:
    """Old and new serve at the same time, so whoever routes can move over without a gap."""
    old = process.create(server_spec(colour="red"))
    new = process.create(server_spec(colour="blue"))
    assert old["program"] != new["program"]
    assert (ask(old["port"])["colour"], ask(new["port"])["colour"]) == ("red", "blue")
    process.delete(server_spec(colour="red"), old)
    assert not alive(old["pid"])
    assert ask(new["port"])["colour"] == "blue"


def test_what_is_being_answered_is_finished_before_a_program_ends(server_spec: SpecFactory, tmp_path: Path) -> None:
    """Deleting drains: SIGTERM, then time to finish."""
    from concurrent.futures import ThreadPoolExecutor

    running = process.create(server_spec())
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, running["port"], "/slow")
        until(lambda: "begun" in seen(tmp_path, "web"), "the request has arrived")
        process.delete(server_spec(), running)
        assert answer.result()["colour"] == "red"
    assert not alive(running["pid"])


def test_deleting_leaves_no_file_and_can_be_repeated(server_spec: SpecFactory, stack_folder: Path) -> None:
    spec = server_spec(files={"web/web.conf": "x"}, seeds={"web/seed": "y"})
    running = process.create(spec)
    for _ in range(2):
        process.delete(spec, running)
    left = [path for folder in ("programs", "specs", "logs", "web") for path in (stack_folder / folder).iterdir()]
    assert left == []


def test_deleting_works_when_the_supervisor_is_gone(server_spec: SpecFactory, stack_folder: Path) -> None:
    """`pulumi destroy` after a reboot must not need a supervisor."""
    running = process.create(server_spec())
    Supervisor(stack_folder).end(keep_data=True)
    process.delete(server_spec(), running)


def test_what_a_killed_pulumi_left_is_swept_by_the_next_create(server_spec: SpecFactory, stack_folder: Path) -> None:
    """Between start and record nobody knows the program; its marker does."""
    lost = process.create(server_spec())
    (stack_folder / "specs" / f"{lost['program']}.pending").touch()
    kept = process.create(server_spec("web-2"))
    process.create(server_spec())
    assert not alive(lost["pid"])
    assert alive(kept["pid"])


def test_a_fixed_port_in_use_is_refused_by_name(server_spec: SpecFactory) -> None:
    """The error says which port, whose, and how to find who holds it."""
    holder = process.create(server_spec("holder"))
    spec = server_spec("late", update="restart", port=holder["port"])
    del spec["port_variable"]
    with pytest.raises(LocalError, match=rf"port {holder['port']} of late is in use by another program"):
        process.create(spec)


def test_seeds_are_written_once_and_files_each_time(server_spec: SpecFactory, stack_folder: Path) -> None:
    """Routes live in a seed: a restarted front door must serve what was applied last."""
    spec = server_spec(update="restart", files={"a/file": "1"}, seeds={"a/seed": "1"})
    running = process.create(spec)
    (stack_folder / "a" / "seed").write_text("applied")
    process.update({**spec, "files": {"a/file": "2"}, "seeds": {"a/seed": "2"}}, running)
    assert (stack_folder / "a" / "file").read_text() == "2"
    assert (stack_folder / "a" / "seed").read_text() == "applied"


def test_ending_the_stack_ends_every_program_and_keeps_data_only_when_told(
    server_spec: SpecFactory, stack_folder: Path
) -> None:
    running = process.create(server_spec(keep=["data/web"]))
    (stack_folder / "data" / "web" / "rows").write_text("1")
    supervisor = Supervisor(stack_folder)
    pid = supervisor.pid()
    supervisor.end(keep_data=True)
    assert not alive(running["pid"])
    assert not alive(pid)
    assert [path.name for path in stack_folder.iterdir()] == ["data"]
    supervisor.end(keep_data=False)
    assert not stack_folder.exists()


def test_a_long_path_gets_a_short_private_socket(tmp_path: Path) -> None:
    """Unix socket paths end at 107 bytes; a deep checkout must work all the same."""
    folder = tmp_path / ("deep" * 25) / "stack"
    supervisor = Supervisor(folder)
    try:
        assert supervisor.start() > 0
        assert supervisor.socket.parent != folder
        assert stat.S_IMODE(supervisor.socket.parent.stat().st_mode) == 0o700
    finally:
        supervisor.end(keep_data=False)
    assert not supervisor.socket.parent.exists()


def _answers(port: int) -> bool:
    try:
        return bool(ask(port))
    except OSError:
        return False
