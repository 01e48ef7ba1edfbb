"""Envoy for real: the split, the pin, the mirror, and changes of all three under running requests."""

from __future__ import annotations

import http.client
import importlib.util
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.local import envoy, front_door, ports, process
from components.local.errors import LocalError
from components.local.supervisor import Supervisor, sockets
from components.traffic import HeaderPin, ReleaseTraffic, Role, TrafficPlan
from tests.infrastructure.conftest import SpecFactory, seen, until

REQUESTS = 1_000


class Door:
    """A running Envoy of a scratch stack, and apis of colours behind it."""

    def __init__(self, folder: Path, server_spec: SpecFactory) -> None:
        self.folder, self.spec_of = folder / "envoy", server_spec
        self.admin = sockets(folder) / "envoy.sock"
        self.port = ports.choose(["door"])["door"]
        spec = importlib.util.find_spec("envoy")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        binary = Path(spec.submodule_search_locations[0]) / "_bin" / "envoy"
        start = envoy.bootstrap(host="127.0.0.1", port=self.port, folder=self.folder, admin_socket=self.admin)
        self.spec: process.ProcessSpec = {
            "folder": str(folder),
            "name": "door",
            "command": [
                str(binary),
                *["-c", "bootstrap.json", "--concurrency", "1", "--disable-hot-restart", "-l", "warn"],
            ],
            "cwd": str(self.folder),
            "files": {"envoy/bootstrap.json": start},
            "seeds": {"envoy/cds.json": envoy.EMPTY, "envoy/rds.json": envoy.CLOSED},
            "health": {"kind": "http", "target": f"unix:{self.admin}:/ready"},
            "port": self.port,
            "update": "restart",
            "grace_seconds": 5.0,
            "start_seconds": 30.0,
        }
        self.running = process.create(self.spec)
        self.apis: dict[str, process.Running] = {}

    def api(self, colour: str) -> process.Running:
        self.apis[colour] = process.create(self.spec_of(colour, colour))
        return self.apis[colour]

    def apply(self, *releases: ReleaseTraffic) -> str:
        addresses = {name: f"127.0.0.1:{api['port']}" for name, api in self.apis.items()}
        return front_door.apply(self.folder, self.admin, front_door.plain(TrafficPlan(releases)), addresses)

    def ask(self, method: str = "GET", path: str = "/", **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body=b"x" if method == "POST" else None, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null"), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def colours(self, count: int, **headers: str) -> Counter[str]:
        """Who answers `count` requests over one connection."""
        answers: Counter[str] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        for _ in range(count):
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            answers[json.loads(answer.read())["colour"] if answer.status == 200 else str(answer.status)] += 1
        connection.close()
        return answers


@pytest.fixture
def door(stack_folder: Path, server_spec: SpecFactory) -> Door:
    """Envoy with two apis, red and green, and no routes yet."""
    door = Door(stack_folder, server_spec)
    door.api("red")
    door.api("green")
    return door


@pytest.fixture
def steady(door: Door) -> Iterator[Callable[[], list[int]]]:
    """Requests without a pause from before the test's steps to its end; gives the statuses so far."""
    statuses: list[int] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                statuses.append(door.ask()[0])
            except OSError:
                statuses.append(0)

    thread = threading.Thread(target=run)
    door.apply(red(100))
    thread.start()
    yield lambda: list(statuses)
    stop.set()
    thread.join()


def _more_than(statuses: Callable[[], list[int]], count: int) -> bool:
    return len(statuses()) > count


def red(weight: int) -> ReleaseTraffic:
    return ReleaseTraffic("red", weight=weight)


def green(weight: int, *, pin: bool = False) -> ReleaseTraffic:
    return ReleaseTraffic("green", weight=weight, pin=HeaderPin("x-slipway-release", "green") if pin else None)


def test_the_split_follows_the_weights_the_pin_decides_and_100_0_takes_it_back(door: Door) -> None:
    """A canary by configuration: 90/10 within the binomial 99.9 % interval, the pin always, and back at once."""
    door.apply(red(90), green(10, pin=True))
    answers = door.colours(REQUESTS)
    assert set(answers) == {"red", "green"}
    # Of 1,000 draws at 10 %: 99.9 % lie within 70 and 133 (binom.ppf at 0.0005 and 0.9995).
    assert 70 <= answers["green"] <= 133
    assert door.colours(200, **{"x-slipway-release": "green"}) == {"green": 200}
    assert set(door.colours(50, **{"x-slipway-release": "blue"})) <= {"red", "green"}
    pids = door.running["pid"], door.apis["red"]["pid"], door.apis["green"]["pid"]
    door.apply(red(100), green(0))
    assert door.colours(REQUESTS) == {"red": REQUESTS}
    supervisor = Supervisor(Path(door.spec["folder"]))
    programs = [door.running["program"], door.apis["red"]["program"], door.apis["green"]["program"]]
    assert tuple(supervisor.status(program).pid for program in programs) == pids, "something was restarted"


def test_changes_of_the_split_lose_no_request(door: Door, steady: Callable[[], list[int]]) -> None:
    for share in (10, 50, 100, 0):
        before = len(steady())
        door.apply(red(100 - share), green(share))
        until(partial(_more_than, steady, before + 50), "50 more requests were answered")
    assert set(steady()) == {200}


def test_a_moved_api_loses_no_request_and_no_answer_under_way(
    door: Door, steady: Callable[[], list[int]], tmp_path: Path
) -> None:
    """New one up, door told, old one drained: what a changed environment does to an api."""
    old = door.apis["red"]
    under_way: list[int] = []
    slow = threading.Thread(target=lambda: under_way.append(door.ask(path="/slow")[0]))
    slow.start()
    until(lambda: "begun" in seen(tmp_path, "red"), "the slow request has arrived")
    new = door.api("red")
    door.apply(red(100))
    process.delete(door.spec_of("red", "red"), old)
    slow.join()
    assert under_way == [200]
    assert set(steady()) == {200}
    assert door.ask()[1]["pid"] == new["pid"]


def test_a_shadow_gets_copies_of_posts_and_answers_nobody(door: Door, tmp_path: Path) -> None:
    """Reads are not copied: they ask for runs that a shadow does not have."""
    door.apply(red(100), ReleaseTraffic("green", role=Role.SHADOW, mirror_percent=100))
    for _ in range(20):
        status, said, _ = door.ask("POST", "/chat")
        assert (status, said["colour"]) == (200, "red")
        assert door.ask("GET", "/runs/1")[1]["colour"] == "red"
    until(lambda: len(seen(tmp_path, "green")) >= 20, "20 copies have arrived")
    assert seen(tmp_path, "green") == ["POST /chat"] * 20


def test_a_request_id_is_kept_or_made_and_the_host_goes_through(door: Door) -> None:
    """One id leads from the client through the front door to the service's log."""
    door.apply(red(100))
    assert door.ask(**{"x-request-id": "mine-1"})[2]["x-request-id"] == "mine-1"
    assert door.ask()[2]["x-request-id"]
    assert door.ask(host="service.example")[1]["host"] == "service.example"


def test_a_dead_api_means_503_as_a_problem_document(door: Door) -> None:
    """Envoy's own errors look like the service's, and say when to try again."""
    door.apply(red(100))
    Supervisor(Path(door.spec["folder"])).stop_program(door.apis["red"]["program"], grace_seconds=5)
    status, problem, headers = door.ask()
    assert (status, problem["status"], problem["title"]) == (503, 503, "Service Unavailable")
    assert headers["content-type"] == "application/problem+json"
    assert headers["retry-after"] == "2"


def test_a_restarted_envoy_serves_what_was_applied_last(door: Door) -> None:
    """A crash of the front door must not undo a canary."""
    version = door.apply(red(0), green(100))
    process.update(door.spec, door.running)
    assert front_door.live_version(door.admin) == version
    assert door.colours(20) == {"green": 20}


def test_closed_routes_answer_404_and_have_no_version(door: Door) -> None:
    """So that a refresh notices routes that were taken away behind Pulumi's back."""
    door.apply(red(100))
    front_door.close(door.folder)
    until(lambda: door.ask()[0] == 404, "Envoy has read the closed routes")
    assert front_door.live_version(door.admin) == "empty"


def test_applying_without_envoy_says_so(door: Door) -> None:
    process.delete(door.spec, door.running)
    with pytest.raises(LocalError, match=r"Envoy does not answer .*; `pulumi up` starts it again"):
        door.apply(red(100))
    assert front_door.live_version(door.admin) == ""
