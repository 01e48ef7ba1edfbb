"""A scripted OpenAI-compatible server for tests: `@copilotkit/aimock` with the scripts of `fixtures/`.

    with ModelServer() as models:
        Service(env={"OPENAI_BASE_URL": models.url})

A script matches words of the question and, by `responseFormat`, whether a plan (`json_schema`) or an answer is asked
for; the first that matches replies, and what nothing matches gets 404. `sequenceIndex` counts the matches of scripts
with otherwise equal conditions since the server began, so each question belongs to one test.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.valkey import free_port
from tests.support.waiting import until_it_answers

FIXTURES = Path(__file__).with_name("fixtures")
LAUNCHER = "SLIPWAY_AIMOCK"
MODEL = "gpt-5-mini"
"""What the tests call the model: the registry knows its price."""
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0


class ModelServer:
    """One aimock on a free loopback port, with the scripts of a folder."""

    def __init__(self, fixtures: Path = FIXTURES) -> None:
        launcher = os.environ.get(LAUNCHER)
        if not launcher:
            raise RuntimeError(
                f"{LAUNCHER} names no model server; run `make test`, "
                f"or set it to what `python tools/bootstrap.py aimock` prints"
            )
        self.port = free_port()
        self._log = tempfile.NamedTemporaryFile(prefix="slipway-aimock-", suffix=".log")  # noqa: SIM115 - until close
        options = ["--port", str(self.port), "--fixtures", str(fixtures), "--validate-on-load", "--strict"]
        self._process = subprocess.Popen(
            [launcher, *options, "--log-level", "warn"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """For OPENAI_BASE_URL."""
        return f"{self.origin}/v1"

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def env(self) -> dict[str, str]:
        """What makes a service use it for everything."""
        return {
            "OPENAI_BASE_URL": self.url,
            "OPENAI_API_KEY": "sk-scripted",
            "ORCHESTRATOR_MODEL": MODEL,
            "REASONING_MODEL": MODEL,
        }

    def requests(self, containing: str) -> list[dict[str, Any]]:
        """Bodies of the completion requests so far whose messages contain `containing`, in order."""
        journal = httpx.get(f"{self.origin}/__aimock/journal", params={"path": "/chat/completions"}, timeout=10)
        bodies = [entry["body"] for entry in journal.raise_for_status().json() if entry["body"]]
        return [
            body
            for body in bodies
            if any(containing in str(message["content"]) for message in body.get("messages", ()))
        ]

    def script(self, *scripts: dict[str, Any]) -> None:
        """Add what a folder cannot hold, such as a reply with a port in it; they are looked at last."""
        response = httpx.post(f"{self.origin}/__aimock/fixtures", json={"fixtures": scripts}, timeout=30)
        response.raise_for_status()

    def _wait_until_ready(self) -> None:
        until_it_answers(
            f"{self.origin}/ready",
            self._process,
            Path(self._log.name),
            name="the model server",
            seconds=_START_SECONDS,
        )

    def close(self) -> None:
        """End it, by its own process id."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait(_STOP_SECONDS)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
