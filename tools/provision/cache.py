"""The cache outside the checkout: `${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-~/.cache}/slipway}`.

    <program>/<version and platform>/   whole or absent: built beside it, then renamed into place
    locks/<program>.lock                held while that program is being installed
    logs/                               output of the steps that installed something
    stamps/                             answers that are slow to find out, with what they were true for

Anything in it may be deleted at any time; it is made again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.provision.console import Failure, say


def cache_root() -> Path:
    """Where everything is kept; absolute."""
    if own := os.environ.get("SLIPWAY_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "slipway"


def logs() -> Path:
    return cache_root() / "logs"


def stamp(*facts: object) -> str:
    """One short text for facts that something is true for; another fact gives another text."""
    return hashlib.sha256("\0".join(str(fact) for fact in facts).encode()).hexdigest()


def file_facts(path: Path) -> str:
    """Path, size and time of change: enough to notice that a program was replaced."""
    status = path.stat()
    return f"{path}:{status.st_size}:{status.st_mtime_ns}"


def needs_space(gigabytes: float, purpose: str) -> None:
    """`Failure` when the cache's disk has less room than a step is known to take."""
    root = cache_root()
    place = next(parent for parent in (root, *root.parents) if parent.exists())
    free = shutil.disk_usage(place).free / 1e9
    if free < gigabytes:
        raise Failure(
            f"{purpose} takes {gigabytes:g} GB for a while, {place} has {free:.1f} GB left",
            fix="free some space, or set SLIPWAY_CACHE to a folder on a larger disk",
        )


@contextmanager
def unwritable_explained() -> Iterator[None]:
    """Turns a full or forbidden disk into a `Failure`."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Failure(
                f"the disk of {cache_root()} is full",
                fix="free some space, or set SLIPWAY_CACHE to a folder on a larger disk",
            ) from None
        ours = str(error.filename or "").startswith(str(cache_root()))
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM) or (
            ours and error.errno in (errno.ENOENT, errno.ENOTDIR)  # its folder cannot be made where it is to be
        ):
            raise Failure(
                f"{error.filename or cache_root()} cannot be written ({error.strerror})",
                fix="set SLIPWAY_CACHE to a folder that you may write to",
            ) from None
        raise


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time; the others wait and then find what the first has installed."""
    folder = cache_root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: {name} is being installed by another run")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def installed(name: str, key: str, install: Callable[[Path], None]) -> Path:
    """The folder `<cache>/<name>/<key>`, made by `install` if it is not there.

    `install` fills an empty folder beside it, which is renamed into place only when it has returned: an interrupted or
    failed installation leaves nothing that a later run would take for good. Safe when several processes ask at once.
    """
    target = cache_root() / name / key
    if target.is_dir():
        return target
    with unwritable_explained(), locked(name):
        if target.is_dir():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(".new-*"):  # of a run that was killed; the lock says that none is at work
            shutil.rmtree(left, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
        try:
            install(new)
            new.chmod(0o755)
            new.rename(target)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return target


def remembered(name: str, key: str, find: Callable[[], str]) -> str:
    """What `find` gave for this key, asked once. For facts about a program that is costly to start.

    An empty answer is none: it is asked for again next time.
    """
    place = cache_root() / "stamps" / name
    try:
        known, _, answer = place.read_text(encoding="utf-8").partition("\n")
        if known == key:
            return answer
    except FileNotFoundError:
        pass
    if not (answer := find()):
        return ""
    with unwritable_explained():
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        temporary.write_text(f"{key}\n{answer}", encoding="utf-8")
        temporary.replace(place)
    return answer
