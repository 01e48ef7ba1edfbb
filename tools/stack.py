"""Drives Pulumi for one stack, and the command line of its service: `python -m tools.stack up|down|slipway|…`, as the
Makefile does.

Where things are, unless the user's environment says otherwise:

| what                        | where                         | the user's word                      |
|-----------------------------|-------------------------------|--------------------------------------|
| state                       | `.slipway/pulumi/`            | `PULUMI_BACKEND_URL`                 |
| passphrase for its secrets  | `.slipway/passphrase`, 0600   | `PULUMI_CONFIG_PASSPHRASE`, `…_FILE` |
| configuration               | `Pulumi.<stack>.yaml`, or a   | `encryptionsalt` or                  |
|                             | copy of it in                 | `secretsprovider` in that file:      |
|                             | `.slipway/pulumi/<stack>/`    | then the file itself is used         |

Pulumi's passphrase provider writes a salt into the stack's configuration file, so a first `pulumi up` would leave every
clone changed, each in its own way. Therefore it is given a copy, made anew from the committed file each time; the salt
itself is in the state, from where Pulumi completes the copy (`PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

import yaml

from tools.provision.console import Failure, say
from tools.provision.environment import REPOSITORY

WITH_CONFIG_FILE = {"destroy", "down", "dn", "import", "logs", "preview", "pre", "refresh", "up", "update", "watch"}
"""Pulumi's commands that take `--config-file`. `config` does too, but must write into the committed file."""
WITH_STACK = {"config", "import", "preview", "pre", "refresh", "up", "update", "watch"}
"""Those that need a stack, which is made if it is not there."""
QUESTION = "What happens to a run when a worker is killed?"
DONE = {"create": "created", "update": "updated", "replace": "replaced", "delete": "deleted"}
"""Pulumi's kinds of step that change something, in words; others ("same", "read") do not."""
VERIFY_SECONDS = 180.0
"""For one answer: the bundled model is slow on a busy machine."""
_PASSING = ("evaluate", "pulumi", "slipway")
"""Verbs whose further words belong to another program."""
_RESERVED = {"pulumi", "passphrase"}


class Stack:
    """One stack of this repository's Pulumi project; nothing is read or written before it is asked for something."""

    def __init__(self, name: str, repository: Path = REPOSITORY) -> None:
        self.name, self.repository = name, repository
        self.committed = repository / f"Pulumi.{name}.yaml"
        self.local = repository / ".slipway"
        self.own_backend = self.local / "pulumi"
        if (
            not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name)
            or name in _RESERVED
            or not self.committed.is_file()
        ):
            known = sorted(path.name.split(".")[1] for path in repository.glob("Pulumi.?*.yaml"))
            raise Failure(
                f"there is no stack {name!r}: no file Pulumi.{name}.yaml here",
                fix=f"use STACK={' or STACK='.join(known)}, or write a file of that name",
            )

    # Where Pulumi finds things

    def environment(self) -> dict[str, str]:
        """The variables for `pulumi`; makes the passphrase and the folder of the state where they are ours."""
        made = dict(os.environ, PULUMI_STACK=self.name, PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER="true")
        made.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
        if self._is_local:
            # Pulumi would fetch the plugins of all packages of the environment, those of Kubernetes too.
            made.setdefault("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
        if "PULUMI_BACKEND_URL" not in made:
            self.own_backend.mkdir(parents=True, exist_ok=True)
            made["PULUMI_BACKEND_URL"] = "file://" + quote(str(self.own_backend))
        if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & made.keys():
            made["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(self._passphrase())
        return made

    @property
    def _is_local(self) -> bool:
        """Whether the stack's platform is this machine, which needs no plugin of Pulumi."""
        settings = yaml.safe_load(self.committed.read_text(encoding="utf-8")) if self.committed.is_file() else {}
        return bool(((settings or {}).get("config") or {}).get("slipway:platform", "local") == "local")

    def _passphrase(self) -> Path:
        """A random one per machine and clone. Never written twice: without it the secrets in the state are lost."""
        path = self.local / "passphrase"
        self.local.mkdir(exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        return path

    @property
    def shares_secrets(self) -> bool:
        """Whether the committed file says how its secrets are encrypted: then it is used as it is."""
        settings = yaml.safe_load(self.committed.read_text(encoding="utf-8")) or {}
        return bool(settings.get("encryptionsalt") or settings.get("secretsprovider"))

    def config_file(self) -> Path:
        """The file for `--config-file`: the committed one, or a fresh copy of it that Pulumi may write into."""
        if self.shares_secrets:
            return self.committed
        folder = self.own_backend / self.name
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / self.committed.name
        temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
        temporary.write_bytes(self.committed.read_bytes())
        temporary.replace(copy)
        return copy

    # Asking Pulumi

    def exists(self) -> bool:
        """Whether the backend has this stack."""
        found = json.loads(self.ask("stack", "ls", "--json"))
        return any(entry["name"].rpartition("/")[2] == self.name for entry in found)

    def create(self) -> None:
        """Make the stack in the backend if it is not there.

        `stack init` knows no `--config-file`: it runs beside the copy, in a folder that looks like the project.
        """
        if self.exists():
            return
        config = self.config_file()
        folder = config.parent
        if folder != self.repository:
            project = yaml.safe_load((self.repository / "Pulumi.yaml").read_text(encoding="utf-8"))
            (folder / "Pulumi.yaml").write_text(
                yaml.safe_dump({"name": project["name"], "runtime": "python"}), encoding="utf-8"
            )
        self.ask("-C", str(folder), "stack", "init", self.name, "--no-select")

    def outputs(self, *, show_secrets: bool) -> dict[str, Any]:
        """The stack's outputs; secrets are the text "[secret]" unless they are to be shown."""
        text = self.ask(
            "stack", "output", "--stack", self.name, "--json", *(["--show-secrets"] if show_secrets else [])
        )
        found: dict[str, Any] = json.loads(text)
        return found

    def last_changes(self) -> dict[str, int]:
        """What the last operation did: resources by kind of step ("same", "create", …)."""
        history = json.loads(self.ask("stack", "history", "--stack", self.name, "--json", "--page-size", "1"))
        changes: dict[str, int] = history[0].get("resourceChanges") or {} if history else {}
        return changes

    def ask(self, *arguments: str) -> str:
        """Run a short command and give what it printed; `Failure` with Pulumi's own words when it fails."""
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "--color", "never"],
            cwd=self.repository,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            words = done.stderr.strip() or done.stdout.strip()
            raise Failure(f"pulumi {shlex.join(arguments)} failed:\n{words}", fix=advice(words, self.name))
        return done.stdout

    def operate(self, verb: str, *arguments: str) -> None:
        """Run a long command with its progress on the terminal; `Failure` when it fails.

        Without a terminal Pulumi prints plain lines and asks nothing.
        """
        plain = [] if sys.stdout.isatty() else ["--non-interactive", "--suppress-progress"]
        process = subprocess.Popen(
            ["pulumi", verb, "--stack", self.name, "--config-file", str(self.config_file()), *arguments, *plain],
            cwd=self.repository,
            env=self.environment(),
        )
        with _interrupts_left_to(process):
            code = process.wait()
        if code:
            raise Failure(f"pulumi {verb} of stack {self.name} failed, see above", fix=advice("", self.name))


@contextmanager
def _interrupts_left_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pulumi ends an interrupted update in order (state written, lock released), so we wait for it.

    Ctrl-C reaches it from the terminal as it reaches us; SIGTERM is handed on.
    """

    def hand_on(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def advice(words: str, stack: str) -> str:
    """What to do about a failure of Pulumi, by its own words."""
    if "passphrase" in words:
        return (
            "the state was encrypted with another passphrase: set PULUMI_CONFIG_PASSPHRASE to the one it was made with "
            "(unset it to use the one in .slipway/passphrase)"
        )
    if "no stack named" in words:
        return f"run `make up STACK={stack}` first"
    if "lock" in words:
        return (
            f'if no other run is at work on it, release the lock: make pulumi STACK={stack} ARGS="cancel --yes", '
            "then run the command again"
        )
    return (
        "mend what the lines above name and run the command again; it goes on where it stopped. "
        f"Logs of local programs: .slipway/{stack}/logs/. Is the stack locked by a run that was killed? "
        f'make pulumi STACK={stack} ARGS="cancel --yes"'
    )


# The commands


def up(stack: Stack) -> None:
    """Bring the stack to what its configuration says, then say where it is and how to use it."""
    stack.create()
    stack.operate("up", "--yes", "--skip-preview", "--suppress-outputs")
    outputs = stack.outputs(show_secrets=True)
    print(summary(stack.name, outputs, stack.last_changes(), show_key=sys.stdout.isatty()))


def summary(stack: str, outputs: dict[str, Any], changes: dict[str, int], *, show_key: bool) -> str:
    """The end of `make up`: addresses, and one line to paste.

    The key itself is shown only where a person looks (`show_key`); in a log there is the command that prints it.
    """
    made = ", ".join(f"{changes[kind]} {word}" for kind, word in DONE.items() if changes.get(kind))
    lines = ["", f"Stack {stack} is up: {made or 'no changes'}", ""]
    for name, title in (
        ("serviceUrl", "service"),
        ("streamUrl", "stream"),
        ("docsUrl", "docs"),
        ("healthUrl", "health"),
    ):
        if name in outputs:
            lines.append(f"  {title:8} {outputs[name]}")
    if "serviceUrl" in outputs and "apiKey" in outputs:
        lines += ["", "Ask it something:", ""]
        if show_key:
            key = str(outputs["apiKey"])
        else:
            key = "$KEY"
            read = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"apiKey\"])'"
            lines.append(f"  KEY=$(make -s outputs STACK={stack} SHOW_SECRETS=1 | {read})")
        body = shlex.quote(json.dumps({"message": QUESTION}))
        url = str(outputs["serviceUrl"]).rstrip("/")
        lines.append(
            f"  curl -s {url}/chat -H \"Authorization: Bearer {key}\" -H 'content-type: application/json' -d {body}"
        )
    return "\n".join([*lines, ""])


def down(stack: Stack) -> None:
    """Take away all that `up` made; data stays only where the configuration keeps it."""
    if stack.exists():
        stack.operate("destroy", "--yes", "--skip-preview", "--suppress-outputs")
        stack.ask("stack", "rm", stack.name, "--yes", "--preserve-config")
        say(f"stack {stack.name} is down and removed")
    else:
        say(f"stack {stack.name} is not up")
    if kept := clear(stack):
        say(f"its data stays, as the configuration says: {kept}")


def clear(stack: Stack) -> Path | None:
    """Remove the files of a stack that is gone; gives the folder of data that stays, if one does."""
    shutil.rmtree(stack.own_backend / stack.name, ignore_errors=True)
    folder = stack.local / stack.name
    data = folder / "data"  # the local platform has deleted it, unless it is to be kept
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry != data:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if not data.exists():
            folder.rmdir()
    states = list((stack.own_backend / ".pulumi" / "stacks").glob("**/*.json"))
    if stack.local.is_dir() and not states:
        # No stack is left here: neither history nor passphrase is of use to anyone.
        shutil.rmtree(stack.own_backend, ignore_errors=True)
        (stack.local / "passphrase").unlink(missing_ok=True)
        if not any(stack.local.iterdir()):
            stack.local.rmdir()
    return data if data.exists() else None


def show_outputs(stack: Stack, *, show_secrets: bool) -> None:
    """Print the outputs as one JSON object and nothing else."""
    outputs = stack.outputs(show_secrets=show_secrets)
    if not outputs:
        raise Failure(
            f"stack {stack.name} has no outputs: it was never brought up to the end",
            fix=f"run `make up STACK={stack.name}`",
        )
    print(json.dumps(outputs, indent=2))


def verify(stack: Stack) -> None:
    """Ask the running stack whether it is ready, and one question through its front door; `Failure` if it is not."""
    outputs = stack.outputs(show_secrets=True)
    service, key = str(outputs["serviceUrl"]).rstrip("/"), str(outputs["apiKey"])
    question = urllib.request.Request(
        f"{service}/chat",
        data=json.dumps({"message": QUESTION}).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    for what, request in (
        ("readiness", urllib.request.Request(str(outputs["healthUrl"]))),
        ("a question", question),
    ):
        try:
            with urllib.request.urlopen(request, timeout=VERIFY_SECONDS) as response:
                if response.status != 200:  # 202: the run goes on, but nobody was answered in time
                    raise urllib.error.HTTPError(request.full_url, response.status, "", response.headers, None)
        except urllib.error.HTTPError as error:
            raise Failure(
                f"{what} of stack {stack.name}: {request.full_url} answered {error.code}",
                fix=f"read the logs (.slipway/{stack.name}/logs/ on the local platform)",
            ) from None
        except OSError as error:
            raise Failure(
                f"{what} of stack {stack.name}: {request.full_url} does not answer ({error})",
                fix=f"run `make refresh up STACK={stack.name}`, and read the logs in .slipway/{stack.name}/logs/",
            ) from None
        say(f"{what}: ok")


def evaluate(stack: Stack, arguments: Sequence[str]) -> None:
    """Become the evaluation of `URL` (with `SLIPWAY_API_KEY`), or of this stack, brought up first."""
    environment = dict(os.environ)
    url = environment.get("URL", "")
    if not url:
        stack.create()
        stack.operate("up", "--yes", "--skip-preview", "--suppress-outputs")
        outputs = stack.outputs(show_secrets=True)
        url, environment["SLIPWAY_API_KEY"] = outputs["serviceUrl"], outputs["apiKey"]
    os.chdir(stack.repository)
    os.execve(sys.executable, [sys.executable, "-m", "tests.evaluation", "--url", url, *arguments], environment)


def pulumi(stack: Stack, arguments: Sequence[str]) -> None:
    """Become `pulumi` with this stack's environment; returns only by raising."""
    words = list(arguments)
    if WITH_STACK & set(words[:1]):
        stack.create()
    if "--config-file" not in words and not stack.shares_secrets and WITH_CONFIG_FILE & set(words[:1]):
        words += ["--config-file", str(stack.config_file())]
    environment = stack.environment()
    os.chdir(stack.repository)
    os.execvpe("pulumi", ["pulumi", *words], environment)


def slipway(stack: Stack, arguments: Sequence[str]) -> None:
    """Become `slipway` with the settings of this stack's running service; returns only by raising.

    They are where the local platform keeps them for its own start, readable by their owner only. So no secret passes
    through an argument, and nothing has to be decrypted.
    """
    settings = service_settings(stack)
    os.chdir(stack.repository)
    os.execve(sys.executable, [sys.executable, "-m", "app.cli", *arguments], {**os.environ, **settings})


def service_settings(stack: Stack) -> dict[str, str]:
    """The variables of an api of the stack, of the newest one of the stable release if there is one.

    A shadow release does not count: what it writes lies apart. `Failure` when none runs on this machine.
    """
    found: list[tuple[bool, float, dict[str, str]]] = []
    for path in (stack.local / stack.name / "specs").glob("api-*.json"):
        env: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["env"]
        if not env.get("REDIS_KEY_PREFIX"):
            found.append((env.get("RELEASE") == "stable", path.stat().st_mtime, env))
    if not found:
        raise Failure(
            f"no service of stack {stack.name} was brought up on this machine",
            fix=f"run `make up STACK={stack.name}`, or run `slipway` yourself where REDIS_URL leads to its Redis",
        )
    return max(found, key=lambda one: one[:2])[2]


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and what goes on to the program behind the verb, its options too."""
    for place, word in enumerate(arguments):
        if word in _PASSING:
            return arguments[: place + 1], arguments[place + 1 :]
    return arguments, []


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="stack", description="Drives Pulumi for one stack.")
    parser.add_argument("--stack", default="dev")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("up", "down", "outputs", "preview", "refresh", "verify", *_PASSING):
        verbs.add_parser(verb)
    own, passed = split(arguments)
    chosen = parser.parse_args(own)
    try:
        stack = Stack(chosen.stack)
        if chosen.verb == "up":
            up(stack)
        elif chosen.verb == "down":
            down(stack)
        elif chosen.verb == "outputs":
            show_outputs(stack, show_secrets=os.environ.get("SHOW_SECRETS", "") not in ("", "0"))
        elif chosen.verb == "preview":
            stack.create()
            stack.operate("preview")
        elif chosen.verb == "refresh":
            stack.operate("refresh", "--yes", "--skip-preview", "--suppress-outputs")
        elif chosen.verb == "verify":
            verify(stack)
        elif chosen.verb == "evaluate":
            evaluate(stack, passed)
        elif chosen.verb == "slipway":
            slipway(stack, passed)
        else:
            pulumi(stack, passed)
    except Failure as failure:
        print(failure.report(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; run the command again to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
