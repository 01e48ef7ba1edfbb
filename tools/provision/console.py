"""What the user sees: lines of progress on stderr, and failures that say what to do.

stdout stays free for what a command is asked for (`make -s outputs` prints JSON and nothing else).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

QUIET_SECONDS = 2.0
"""A step that ends sooner shows no running clock."""
PLAIN_INTERVAL_SECONDS = 20.0
"""Between two lines of progress where no terminal redraws one line (CI logs)."""
TAIL_LINES = 15


class Failure(Exception):
    """A step could not be done, for a reason that the user can do something about; shown without a traceback."""

    def __init__(self, what: str, *, fix: str, log: Path | None = None) -> None:
        super().__init__(what)
        self.what, self.fix, self.log = what, fix, log

    def report(self) -> str:
        """What failed, where its log is, what to do: one line each."""
        lines = [f"error: {self.what}"]
        if self.log is not None:
            lines.append(f"  log: {self.log}")
        lines.append(f"  to do: {self.fix}")
        return "\n".join(lines)


def say(text: str) -> None:
    """One line to the user."""
    print(f"slipway: {text}", file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    """'42 s', '4 min 05 s'."""
    whole = int(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def shown(text: str, width: int) -> str:
    """Text on one line of at most `width` characters, without control characters."""
    flat = "".join(character if character.isprintable() else " " for character in text).strip()
    return flat if len(flat) <= width else flat[: max(width - 1, 0)] + "…"


class Progress:
    """A clock beside what is being done: one line redrawn on a terminal, a plain line now and then elsewhere.

    >>> with Progress("Downloading Go") as progress:
    ...     progress.detail = "12 of 70 MB"
    """

    def __init__(self, title: str) -> None:
        self.title, self.detail = title, ""
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._terminal = sys.stderr.isatty()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._terminal and self.seconds > QUIET_SECONDS:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
        if error is None and self.seconds > QUIET_SECONDS:
            say(f"{self.title}: done in {minutes(self.seconds)}")

    def _run(self) -> None:
        if self._ended.wait(QUIET_SECONDS):
            return
        interval = 0.5 if self._terminal else PLAIN_INTERVAL_SECONDS
        if not self._terminal and self._ended.wait(interval - QUIET_SECONDS):
            return
        while True:
            self._draw()
            if self._ended.wait(interval):
                return

    def _draw(self) -> None:
        text = f"{self.title}: {minutes(self.seconds)}" + (f", {self.detail}" if self.detail else "")
        if self._terminal:
            width = shutil.get_terminal_size().columns - 10
            sys.stderr.write("\r\x1b[2Kslipway: " + shown(text, width))
            sys.stderr.flush()
        else:
            say(shown(text, 160))


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented; empty when there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join("  | " + shown(line, 200) for line in text.splitlines()[-lines:])


@contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """No child outlives an interrupted bootstrap."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _follow(lines: IO[bytes], log: IO[bytes], progress: Progress, count: str) -> None:
    """Copy a program's output into its log until it ends, and show how far it is."""
    for number, line in enumerate(lines, start=1):
        log.write(line)
        log.flush()
        progress.detail = f"{number} {count}" if count else line.decode(errors="replace").strip()


def run_logged(
    title: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    fix: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    count: str = "",
) -> None:
    """Run a program with its output in `log` and the newest line of it as progress.

    With `count` the progress is the number of lines so far, called that ("packages compiled"). `Failure` when it ends
    with anything but 0; the log's end is shown before it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    with log.open("wb") as output, Progress(title) as progress:
        output.write(("$ " + " ".join(words) + "\n").encode())
        try:
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env=dict(os.environ if env is None else env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise Failure(f"{title}: {words[0]} does not run ({error.strerror})", fix=fix, log=log) from None
        with _ended_with_us(process):
            assert process.stdout is not None
            with process.stdout as lines:
                _follow(lines, output, progress, count)
            code = process.wait()
        if code == 0:
            return
    print(tail(log), file=sys.stderr)
    raise Failure(f"{title} failed ({Path(words[0]).name} ended with {code})", fix=fix, log=log)
