"""The HTTP tools against real servers on loopback: redirects, limits, pinned addresses, certificates."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.tools.api_client import http_tools
from app.tools.guarded_http import GuardedHttp
from app.tools.registry import ToolRegistry
from app.tools.tool import OutcomeUnknown, ToolCall, ToolError, ToolResult

_LIMIT = 2_000


class Handler(BaseHTTPRequestHandler):
    """Answers by path, and remembers what it was asked."""

    server: Recorder

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        match self.path.partition("?")[0]:
            case "/json":
                self._answer(200, b'{"answer": 42}', "application/json; charset=utf-8")
            case "/missing":
                self._answer(404, b'{"error": "no such thing"}', "application/json")
            case "/big":
                self._answer(200, b"x" * 50_000, "text/plain")
            case "/image":
                self._answer(200, b"\x89PNG", "image/png")
            case "/gzip":
                self._answer(200, b"\x1f\x8b", "text/plain", {"Content-Encoding": "gzip"})
            case "/slow":
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                while not self.server.ended.wait(0.05):
                    self.wfile.write(b"drip")
            case "/to":
                self._answer(302, b"", "text/plain", {"Location": self.path.partition("?")[2]})
            case "/keep":
                self._answer(307, b"", "text/plain", {"Location": self.path.partition("?")[2]})
            case _:
                self._answer(200, b"here", "text/plain")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.bodies.append(body)
        match self.path:
            case "/gone":  # it has acted, and its answer never comes
                self.close_connection = True
            case "/gateway":
                self._answer(502, b"bad gateway", "text/plain")
            case _:
                self.do_GET()

    def _answer(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


class Recorder(ThreadingHTTPServer):
    """A server that can be asked afterwards what it saw."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.ended = threading.Event()
        self.port: int = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is what some tests are about."""


@contextmanager
def serving(server: Recorder) -> Iterator[Recorder]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[Recorder]:
    """One plain HTTP server."""
    with serving(Recorder()) as running:
        yield running


@pytest.fixture
def other() -> Iterator[Recorder]:
    """Another origin."""
    with serving(Recorder()) as running:
        yield running


def resolver_to(*addresses: str) -> Callable[..., object]:
    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return resolve


def http_to(*servers: Recorder, timeout_seconds: float = 5) -> GuardedHttp:
    """A client that may call these, each under the name `api.test` with its port."""
    return GuardedHttp(
        [f"api.test:{server.port}" for server in servers],
        timeout_seconds=timeout_seconds,
        max_bytes=_LIMIT,
        resolver=resolver_to("127.0.0.1"),  # type: ignore[arg-type]
    )


async def call(http: GuardedHttp, name: str, **args: object) -> ToolResult:
    registry = ToolRegistry(http_tools(http, ("api.test",), timeout_seconds=5))
    return await registry.invoke(name, args, call_id="c1", task_id="t1", context=None)


async def test_json_comes_as_text_and_as_data(server: Recorder) -> None:
    """The model reads the one, programs the other; the source has no query, where keys tend to be."""
    result = await call(http_to(server), "http_get", url=f"http://api.test:{server.port}/json?token=s3cret")
    assert (result.ok, result.data["json"], result.data["status"]) == (True, {"answer": 42}, 200)
    assert result.sources[0].uri == f"http://api.test:{server.port}/json"
    method, _, headers = server.asked[0]
    assert (method, headers["host"], headers["accept-encoding"]) == ("GET", f"api.test:{server.port}", "identity")
    assert "cookie" not in headers


async def test_an_error_of_the_api_is_a_result_that_says_so(server: Recorder) -> None:
    """The model can only mend what it is told."""
    result = await call(http_to(server), "http_get", url=f"http://api.test:{server.port}/missing")
    assert not result.ok
    assert "HTTP 404" in result.text
    assert "no such thing" in result.text


async def test_a_post_carries_its_call_as_idempotency_key(server: Recorder) -> None:
    """The same call after a crash has the same key, another call another: what makes a repeat harmless there."""
    registry = ToolRegistry(http_tools(http_to(server), ("api.test",), timeout_seconds=5))
    url = f"http://api.test:{server.port}/orders"
    for call_id in ("a", "a", "b"):
        args = {"url": url, "body": {"ü": 1}}
        assert (await registry.invoke("http_post", args, call_id=call_id, task_id="t", context=None)).ok
    keys = [headers["idempotency-key"] for _, _, headers in server.asked]
    assert keys[0] == keys[1] != keys[2]
    assert json.loads(server.bodies[0]) == {"ü": 1}


@pytest.mark.parametrize("path", ["/gone", "/slow", "/gateway", "/to?http://api.test:1/"])
async def test_a_post_that_was_sent_and_got_no_answer_may_have_been_acted_on(server: Recorder, path: str) -> None:
    """The connection broke, the time was up, a gateway answered, or what followed failed: nobody knows."""
    post = http_tools(http_to(server, timeout_seconds=0.3), ("api.test",), timeout_seconds=5)[1]
    arguments = post.arguments.model_validate({"url": f"http://api.test:{server.port}{path}", "body": 1})
    with pytest.raises(OutcomeUnknown):
        await post.call(arguments, ToolCall("http_post", "c1", "t1", None))  # type: ignore[arg-type]
    assert server.bodies == [b"1"]


async def test_a_post_that_was_not_sent_or_sent_back_has_failed_for_certain(server: Recorder) -> None:
    """Nobody listens; or the server wants it sent to a host that may not be called: then nobody has acted on it."""
    http = GuardedHttp(
        ["api.test:1", f"api.test:{server.port}"],
        timeout_seconds=5,
        max_bytes=_LIMIT,
        resolver=resolver_to("127.0.0.1"),  # type: ignore[arg-type]
    )
    for url in ("http://api.test:1/", f"http://api.test:{server.port}/keep?http://elsewhere.test/"):
        with pytest.raises(ToolError) as caught:
            await http.request("POST", url, content=b"1")
        assert not isinstance(caught.value, OutcomeUnknown)


async def test_an_answer_to_a_post_that_cannot_be_read_is_still_an_answer(server: Recorder) -> None:
    """It has been acted on; only what it says is left out."""
    result = await call(http_to(server), "http_post", url=f"http://api.test:{server.port}/image", body=1)
    assert result.ok
    assert result.text.startswith("HTTP 200")
    assert result.text.endswith("[the answer is image/png and is left out]")


async def test_a_redirect_is_followed_only_where_a_call_could_go(server: Recorder, other: Recorder) -> None:
    """Else one allowed host with an open redirect opens all the others."""
    onward = f"http://api.test:{server.port}/to?http://api.test:{other.port}"
    assert (await call(http_to(server, other), "http_get", url=f"{onward}/there")).ok
    asked = len(other.asked)
    for url in (
        f"{onward}/there",
        f"http://api.test:{server.port}/to?http://169.254.169.254/latest",
        f"http://api.test:{server.port}/to?file:///etc/passwd",
        f"http://api.test:{server.port}/to?//127.0.0.1:{other.port}/",
        f"http://api.test:{server.port}/to?http://u:p@api.test:{server.port}/",
    ):
        assert not (await call(http_to(server), "http_get", url=url)).ok
    assert len(other.asked) == asked


async def test_redirects_end(server: Recorder) -> None:
    """A loop would else last as long as the time limit."""
    result = await call(http_to(server), "http_get", url=f"http://api.test:{server.port}/to?/json")
    assert result.ok
    loop = f"http://api.test:{server.port}/keep?/keep"
    with pytest.raises(ToolError, match="redirects"):
        await http_to(server).request("GET", loop + "?/keep" * 8)


async def test_no_header_and_no_body_goes_to_another_origin(server: Recorder, other: Recorder) -> None:
    """Credentials and payload were meant for the host that was named."""
    http = http_to(server, other)
    url = f"http://api.test:{server.port}/to?http://api.test:{other.port}/there"
    await http.request("POST", url, headers={"authorization": "Bearer s3cret", "x-key": "s3cret"}, content=b"payload")
    method, _, headers = other.asked[0]
    assert method == "GET"
    assert "s3cret" not in str(headers)
    assert other.bodies == []
    with pytest.raises(ToolError, match="another host"):
        await http.request("POST", url.replace("/to?", "/keep?"), content=b"payload")
    assert other.bodies == []


async def test_a_body_is_read_up_to_the_limit(server: Recorder) -> None:
    """A worker's memory and a model's prompt have an end."""
    answer = await http_to(server).request("GET", f"http://api.test:{server.port}/big")
    assert (len(answer.body), answer.truncated) == (_LIMIT, True)


@pytest.mark.parametrize("path", ["/image", "/gzip"])
async def test_what_is_not_text_is_refused(server: Recorder, path: str) -> None:
    """Compressed answers could unpack to gigabytes; images are nothing for a prompt."""
    with pytest.raises(ToolError):
        await http_to(server).request("GET", f"http://api.test:{server.port}{path}")


async def test_the_time_limit_holds_over_a_body_that_drips(server: Recorder) -> None:
    """A limit per read alone would never end this one."""
    begun = time.monotonic()
    with pytest.raises(ToolError, match=r"no answer within 0\.5 s"):
        await http_to(server, timeout_seconds=0.5).request("GET", f"http://api.test:{server.port}/slow")
    assert time.monotonic() - begun < 3


async def test_the_connection_goes_to_the_address_that_was_checked(server: Recorder) -> None:
    """A name that is looked up again for the connection could have changed to an inner address meanwhile."""
    looked_up = []

    async def once(host: str, _port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    http = GuardedHttp([f"name.invalid:{server.port}"], timeout_seconds=5, max_bytes=_LIMIT, resolver=once)
    assert (await http.request("GET", f"http://name.invalid:{server.port}/json")).status == 200
    assert looked_up == ["name.invalid"]


async def test_the_next_address_is_tried_when_one_does_not_answer(server: Recorder) -> None:
    """Hosts have IPv6 addresses that the machine cannot reach."""
    http = GuardedHttp(
        [f"api.test:{server.port}"],
        timeout_seconds=5,
        max_bytes=_LIMIT,
        resolver=resolver_to("127.0.0.9", "127.0.0.1"),  # type: ignore[arg-type]
    )
    assert (await http.request("GET", f"http://api.test:{server.port}/json")).status == 200


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for `api.test` with its key in one file, trusted by whatever reads SSL_CERT_FILE."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=api.test", "-days", "1",
            "-addext", "subjectAltName=DNS:api.test",
        ],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + certificate.read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return both


async def test_a_certificate_of_another_name_is_refused(certificate: Path) -> None:
    """The connection goes to an address, so it must be the name that the certificate is checked against."""
    secure = Recorder()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    with serving(secure):
        http = GuardedHttp(
            [f"api.test:{secure.port}", f"other.test:{secure.port}"],
            timeout_seconds=5,
            max_bytes=_LIMIT,
            resolver=resolver_to("127.0.0.1"),  # type: ignore[arg-type]
        )
        assert (await http.request("GET", f"https://api.test:{secure.port}/json")).status == 200
        with pytest.raises(ToolError, match="ConnectError"):
            await http.request("GET", f"https://other.test:{secure.port}/json")
