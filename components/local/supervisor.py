"""One supervisord per stack: start it, end it, and keep its programs, over its Unix socket.

| path in the stack's folder | what                                                          |
|----------------------------|---------------------------------------------------------------|
| supervisor.conf, .pid, .log| supervisord's own                                             |
| programs/<program>.conf    | one program, without any secret                               |
| specs/<program>.json       | its command and environment, mode 0600 (see `launcher`)       |
| logs/<program>.log         | its output, rotated                                           |
| data/                      | what programs keep; deleted with the stack unless it is kept  |

supervisord and not a service manager of the system: it needs no root and lives in the checkout.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from components.local.errors import LocalError, SupervisorGone
from components.local.health import UnixHTTPConnection

INHERITED = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""What programs see of the environment in which the supervisor was started; nothing else of it, so no passphrase."""

_SOCKET_PATH_BYTES = 90
"""Linux allows 107 bytes; supervisord appends its pid to the name while it binds."""
_START_SECONDS = 15.0
_BAD_NAME, _ALREADY_ADDED, _NOT_RUNNING, _ALREADY_STARTED = 10, 90, 70, 60  # supervisor/xmlrpc.py Faults


def sockets(folder: Path) -> Path:
    """Where the stack's Unix sockets lie: its own folder, or a short private one when that path is too long."""
    if len(os.fsencode(folder / "supervisor.sock")) <= _SOCKET_PATH_BYTES:
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"slipway-{os.getuid()}-{digest}"


def private_folder(path: Path) -> None:
    """Make `path` (and its parents) readable by its owner alone. Refuses a folder that belongs to somebody else."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise LocalError(f"{path} belongs to somebody else; remove it, or run as its owner")
    path.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write `text` so that only the owner can ever read it, and readers see the old or the new file, never a part."""
    private_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__()
        self._path, self._timeout = path, timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = UnixHTTPConnection(self._path, self._timeout)
        self._connection = host, connection  # where `close` looks for it
        return connection


@dataclass(frozen=True, slots=True)
class Status:
    """A program as supervisord sees it. `state` is its word (RUNNING, BACKOFF, FATAL …) or GONE; pid 0: none."""

    state: str
    pid: int
    detail: str = ""

    @property
    def runs(self) -> bool:
        return self.state in ("RUNNING", "STARTING")


GONE = Status("GONE", 0)


class Supervisor:
    """The supervisor of one stack folder. Holds no connection: each call opens its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = sockets(folder) / "supervisor.sock"

    def _call(self, method: str, *args: Any, timeout: float = 10.0) -> Any:
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=_UnixTransport(self.socket, timeout))
        try:
            with proxy:
                return getattr(proxy.supervisor, method)(*args)
        except (FileNotFoundError, ConnectionError, http.client.HTTPException) as error:
            raise SupervisorGone(self.folder) from error
        except TimeoutError as error:
            raise LocalError(
                f"the supervisor of {self.folder} did not answer {method} in {timeout:g} s; see supervisor.log there"
            ) from error

    def pid(self) -> int:
        """supervisord's pid; 0 when none answers."""
        try:
            return cast(int, self._call("getPID"))
        except SupervisorGone:
            return 0

    def start(self) -> int:
        """Start supervisord; its pid. One that answers already is left as it is."""
        pid = self.pid()
        if pid:
            return pid
        for name in ("", "programs", "specs", "logs", "data"):
            private_folder(self.folder / name)
        private_folder(self.socket.parent)
        self.socket.unlink(missing_ok=True)
        write_private(self.folder / "supervisor.conf", self._configuration())
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        run = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.folder / "supervisor.conf")],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        deadline = time.monotonic() + _START_SECONDS
        while run.returncode == 0 and time.monotonic() < deadline:
            pid = self.pid()
            if pid:
                return pid
            time.sleep(0.05)
        raise LocalError(
            f"supervisord did not start in {self.folder}: {run.stderr.strip()[-500:] or 'see supervisor.log there'}; "
            "mend that and run `pulumi up` again"
        )

    def _configuration(self) -> str:
        return f"""[unix_http_server]
file={_escape(self.socket)}
chmod=0700

[supervisord]
directory={_escape(self.folder)}
logfile={_escape(self.folder / "supervisor.log")}
logfile_maxbytes=2MB
logfile_backups=1
loglevel=info
pidfile={_escape(self.folder / "supervisor.pid")}
identifier=slipway
umask=077
minfds=1024

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[include]
files={_escape(self.folder / "programs")}/*.conf
"""

    def end(self, *, keep_data: bool, seconds: float = 90.0) -> None:
        """Stop all programs and supervisord, then remove the folder's content (`data/` too unless it is kept)."""
        pid = self.pid()
        if pid:
            # All at once; a shutdown alone would let them drain one after the other.
            self._call("stopAllProcesses", timeout=seconds)
            self._call("shutdown")
            deadline = time.monotonic() + seconds
            while _alive(pid):
                if time.monotonic() > deadline:
                    raise LocalError(
                        f"supervisord (pid {pid}) has not ended within {seconds:g} s; end it and try again"
                    )
                time.sleep(0.05)
        if self.socket.parent != self.folder:
            shutil.rmtree(self.socket.parent, ignore_errors=True)
        if not self.folder.exists():
            return
        for entry in self.folder.iterdir():
            if entry.name == "data" and keep_data:
                continue
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if not keep_data:
            self.folder.rmdir()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One change of the list of programs at a time: supervisord re-reads all files for each."""
        private_folder(self.folder)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def log(self, program: str) -> Path:
        return self.folder / "logs" / f"{program}.log"

    def spec(self, program: str) -> Path:
        return self.folder / "specs" / f"{program}.json"

    def add(self, program: str, *, grace_seconds: float) -> None:
        """Make `program` known, stopped. Its spec must be written; one that is known already is replaced."""
        launcher = Path(__file__).with_name("launcher.py")
        arguments = [sys.executable, "-I", str(launcher), str(self.spec(program)), str(self.folder / "supervisor.pid")]
        text = f"""[program:{program}]
command={" ".join(_escape(shlex.quote(argument)) for argument in arguments)}
autostart=false
autorestart=true
startsecs=1
startretries=8
stopsignal=TERM
stopwaitsecs={int(grace_seconds) or 1}
killasgroup=true
redirect_stderr=true
stdout_logfile={_escape(self.log(program))}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""
        with self._alone():
            write_private(self.folder / "programs" / f"{program}.conf", text)
            self._call("reloadConfig")
            try:
                self._call("addProcessGroup", program)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode != _ALREADY_ADDED:
                    raise
                self._call("removeProcessGroup", program)
                self._call("addProcessGroup", program)

    def start_program(self, program: str) -> None:
        try:
            self._call("startProcess", program, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _ALREADY_STARTED:
                raise LocalError(f"{program} could not be started: {fault.faultString}") from fault

    def stop_program(self, program: str, *, grace_seconds: float) -> None:
        """SIGTERM, wait up to the grace, then SIGKILL; returns when it has ended. Nothing when it does not run."""
        try:
            self._call("stopProcess", program, True, timeout=grace_seconds + 15)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in (_NOT_RUNNING, _BAD_NAME):
                raise

    def remove(self, program: str, *, grace_seconds: float, keep_log: bool = False) -> None:
        """Stop `program` and forget it; doing it twice, or without a supervisor, is fine."""
        try:
            self.stop_program(program, grace_seconds=grace_seconds)
            with self._alone():
                (self.folder / "programs" / f"{program}.conf").unlink(missing_ok=True)
                self._call("removeProcessGroup", program)
        except SupervisorGone:
            (self.folder / "programs" / f"{program}.conf").unlink(missing_ok=True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _BAD_NAME:
                raise
        self.spec(program).unlink(missing_ok=True)
        if not keep_log:
            for path in (self.folder / "logs").glob(f"{program}.log*"):
                path.unlink()

    def status(self, program: str) -> Status:
        """How `program` is now; GONE when it, or the supervisor, is."""
        try:
            info = self._call("getProcessInfo", program)
        except SupervisorGone:
            return GONE
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _BAD_NAME:
                return GONE
            raise
        return Status(info["statename"], info["pid"], info["spawnerr"] or info["description"])


def _escape(value: object) -> str:
    """For supervisord's configuration, where % begins an expansion and ; after a space a comment."""
    text = str(value).replace("%", "%%")
    if " ;" in text or "\n" in text:
        raise LocalError(f"{value} cannot stand in supervisord's configuration; move the checkout to a simpler path")
    return text


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        pass
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
