"""The cache is whole or absent, and knows when it is out of date."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from tools.provision import cache, environment, programs
from tools.provision.console import Failure, minutes, run_logged, shown
from tools.provision.go import BuildCaches


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_cache_lies_outside_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """`git clean` must not cost five minutes of building, nor the build show up in `git status`."""
    monkeypatch.delenv("SLIPWAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.cache_root() == Path("/somewhere/slipway")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache.cache_root() == Path("/home/me/.cache/slipway")


def test_a_failed_installation_leaves_nothing(root: Path) -> None:
    """Half a program taken for a whole one fails where nobody looks for the cause."""

    def install(folder: Path) -> None:
        (folder / "half").write_text("…")
        raise Failure("cut off", fix="try again")

    with pytest.raises(Failure):
        cache.installed("thing", "1", install)
    assert list((root / "thing").iterdir()) == []


def test_what_a_killed_run_left_is_cleared_and_never_used(root: Path) -> None:
    """SIGKILL in the middle leaves the folder that was being filled."""
    left = root / "thing" / ".new-abc"
    left.mkdir(parents=True)
    (left / "half").write_text("…")
    made = cache.installed("thing", "1", lambda folder: (folder / "whole").touch())
    assert [path.name for path in made.iterdir()] == ["whole"]
    assert not left.exists()


def test_two_at_once_install_once() -> None:
    """Two terminals, or a test run beside `make up`."""
    calls: list[Path] = []
    begun, go_on = threading.Event(), threading.Event()

    def install(folder: Path) -> None:
        calls.append(folder)
        begun.set()
        assert go_on.wait(10)

    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(cache.installed("thing", "1", install))) for _ in range(2)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(calls) == 1
    assert len(set(found)) == 1
    assert len(found) == 2


def test_a_full_disk_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five minutes of building for a "no space left" helps nobody."""
    with pytest.raises(Failure, match="takes 1e\\+06 GB") as raised:
        cache.needs_space(1e6, "building")
    assert "SLIPWAY_CACHE" in raised.value.fix


def test_a_forbidden_cache_names_the_setting() -> None:
    """A traceback with errno 13 does not."""
    with pytest.raises(Failure, match="cannot be written") as raised, cache.unwritable_explained():
        raise PermissionError(13, "Permission denied", "/nowhere")
    assert "SLIPWAY_CACHE" in raised.value.fix


def test_an_answer_is_asked_once_per_key_and_no_answer_is_none() -> None:
    """`pulumi version` takes a third of a second, each time; a failing one may work tomorrow."""
    asked: list[str] = []

    def find(answer: str) -> str:
        asked.append(answer)
        return answer

    assert cache.remembered("version", "a", lambda: find("1")) == "1"
    assert cache.remembered("version", "a", lambda: find("2")) == "1"
    assert cache.remembered("version", "b", lambda: find("")) == ""
    assert cache.remembered("version", "b", lambda: find("3")) == "3"
    assert asked == ["1", "", "3"]


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(exist_ok=True)
    made = folder / name
    made.write_text(f"#!/bin/sh\necho '{says}'\n")
    made.chmod(0o755)
    return made


@pytest.mark.parametrize(
    ("says", "enough"),
    [("tool 1.10.0", True), ("tool v1.9", True), ("go version go1.8.9 linux/amd64", False), ("no number", False)],
)
def test_an_old_program_on_path_is_passed_over(
    says: str, enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.10 is newer than 1.9, which text comparison gets wrong; what says nothing is not trusted."""
    made = program(tmp_path / "bin", "tool", says)
    monkeypatch.setenv("PATH", str(made.parent), prepend=os.pathsep)
    assert programs.on_path("tool", (1, 9), "version") == (made if enough else None)


def test_a_replaced_program_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade must not need `rm -r ~/.cache/slipway` to be noticed."""
    made = program(tmp_path / "bin", "tool", "1.0")
    monkeypatch.setenv("PATH", str(made.parent), prepend=os.pathsep)
    assert programs.on_path("tool", (2, 0)) is None
    program(tmp_path / "bin", "tool", "2.0.0")
    assert programs.on_path("tool", (2, 0)) == made


def test_the_environment_is_out_of_date_when_packages_or_lock_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uv sync` is skipped by this stamp alone: what it misses stays broken until somebody deletes `.venv`."""
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    for name in ("uv.lock", "pyproject.toml"):
        (tmp_path / name).write_text("1")
    packages = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)

    def now() -> str:
        return environment.facts(tmp_path / ".venv", ["sync"])

    before = now()
    assert now() == before
    (packages / "new-1.dist-info").mkdir()
    after_package = now()
    (tmp_path / "uv.lock").write_text("2")
    after_lock = now()
    monkeypatch.setenv("UV_PYTHON", "3.13")
    assert len({before, after_package, after_lock, now()}) == 4


def test_a_failing_program_is_reported_with_its_log_and_its_last_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What failed, where its log is, what to do: nothing else helps at a terminal."""
    log = tmp_path / "log"
    with pytest.raises(Failure) as raised:
        run_logged("Building", ["/bin/sh", "-c", "echo first; echo the reason >&2; exit 3"], log=log, fix="mend it")
    report = raised.value.report()
    assert "Building failed (sh ended with 3)" in report
    assert str(log) in report
    assert "mend it" in report
    assert "the reason" in capfd.readouterr().err
    assert "first\nthe reason" in log.read_text()


def test_a_program_that_is_not_there_is_a_failure_too(tmp_path: Path) -> None:
    """A traceback of Popen tells the user nothing."""
    with pytest.raises(Failure, match="does not run"):
        run_logged("Building", [tmp_path / "nothing"], log=tmp_path / "log", fix="install it")


def test_gos_read_only_modules_are_removed_after_the_build(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three gigabytes that nobody asked for, which a plain delete cannot remove."""
    for name in ("GOCACHE", "GOMODCACHE"):
        monkeypatch.delenv(name, raising=False)
    caches = BuildCaches(root / "go" / "1" / "bin" / "go")
    module = Path(caches.environment()["GOPATH"]) / "pkg" / "mod" / "example"
    module.mkdir(parents=True)
    (module / "file").write_text("…")
    module.chmod(stat.S_IRUSR | stat.S_IXUSR)
    caches.remove()
    assert not (root / "go-build").exists()


def test_a_users_own_go_keeps_its_caches(root: Path) -> None:
    """They are theirs, and make the next build quick."""
    caches = BuildCaches(Path("/usr/local/go/bin/go"))
    assert "GOPATH" not in caches.environment() or caches.environment()["GOPATH"] == os.environ.get("GOPATH")
    (root / "go-build").mkdir(parents=True)
    caches.remove()
    assert (root / "go-build").exists()


def test_times_and_lines_are_short() -> None:
    """They are redrawn on one line; a control character would move the cursor."""
    assert [minutes(9.9), minutes(61), minutes(605)] == ["9 s", "1 min 01 s", "10 min 05 s"]
    assert shown("a\x1b[2Kb\rc", 40) == "a [2Kb c"
    assert shown("abcdef", 4) == "abc…"
