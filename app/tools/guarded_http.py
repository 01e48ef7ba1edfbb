"""HTTP to allowed hosts only, and to no address inside one's own network.

A request goes through four gates, and so does each redirect again: the URL's form, the list of allowed hosts, the
addresses that the host has, and limits of time, size and type while the answer comes in. The connection is made to the
very address that was checked, so a name that changes its address in between (DNS rebinding) gains nothing; the
certificate is still checked against the name.

An entry of the list is a host (`api.example.com`), which then must have public addresses only and is called on the
scheme's own port, or `host:port`, which names one port and, being explicit, may lie inside the own network.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from app.infra.errors import ConfigurationError
from app.tools.tool import OutcomeUnknown, ToolError

MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}
_TEXT_TYPES: Final = (
    "text/",
    "application/json",
    "application/xml",
    "application/problem+json",
    "application/x-ndjson",
)
_USER_AGENT: Final = "slipway-api-client"

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of (host, port), as texts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. `truncated`: the body went on beyond the size limit."""

    status: int
    url: str
    """Where it came from in the end, without query."""
    content_type: str
    body: bytes = field(repr=False)
    truncated: bool


class _Sent:
    """Whether a request that may change something has gone out; what goes wrong after that leaves the outcome open."""

    def __init__(self) -> None:
        self.changing = False

    def watch(self, method: str) -> Callable[[str, Any], Awaitable[None]]:
        """For httpcore's extension `trace`, which tells of each thing that it begins."""

        async def trace(event: str, _info: Any) -> None:
            if method != "GET" and event.endswith(".send_request_headers.started"):
                self.changing = True

        return trace

    def failure(self, text: str, fix: str = "") -> ToolError:
        """The error to raise: whoever cannot tell what became of the request has no other way to try."""
        return OutcomeUnknown(text) if self.changing else ToolError(text, fix=fix)


async def resolve(host: str, port: int) -> list[str]:
    """All addresses that the system's resolver gives. Raises `ToolError` when there are none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ToolError(f"the host {host} was not found", fix="check its name") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedHttp:
    """A client behind these gates. Keeps no cookies and no connections between calls."""

    def __init__(
        self, allowed_hosts: Iterable[str], *, timeout_seconds: float, max_bytes: int, resolver: Resolve = resolve
    ) -> None:
        """Raises `ConfigurationError` for an entry that is neither a host nor `host:port`."""
        self._allowed = frozenset(_entry(host) for host in allowed_hosts)
        self._timeout_seconds, self._max_bytes, self._resolve = timeout_seconds, max_bytes, resolver
        self._tls = None if not self._allowed else httpx.create_ssl_context()

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Answer:
        """The answer to one request, redirects followed.

        Raises `ToolError` for whatever a gate refuses, and `OutcomeUnknown` for what goes wrong once a request other
        than GET is on its way: it may have been acted on. `headers` go to the first host only: a redirect to another
        origin gets none of them, and no body.
        """
        fields, sent = {**(headers or {})}, _Sent()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for _ in range(MAX_REDIRECTS + 1):
                    target = self._checked(url)
                    async with self._send(method, target, fields, content, sent) as response:
                        onward = response.headers.get("location")
                        if response.status_code not in _REDIRECTS or onward is None:
                            return await self._read(response, target, sent)
                        if response.status_code in (307, 308):  # to be sent elsewhere: not acted on here
                            sent.changing = False
                        url, method, content, fields = _redirected(
                            response.status_code, target, onward, method, content, fields
                        )
        except TimeoutError as error:
            raise sent.failure(f"no answer within {self._timeout_seconds:g} s", "try another way") from error
        except httpx.HTTPError as error:
            raise sent.failure(f"the request failed ({type(error).__name__})", "try another way") from error
        except ToolError as refusal:
            raise sent.failure(refusal.text, refusal.fix) from refusal
        raise sent.failure(f"more than {MAX_REDIRECTS} redirects", "ask for the final URL")

    def _checked(self, url: str) -> httpx.URL:
        """`url`, well-formed and of an allowed host. Raises `ToolError`."""
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise ToolError("this is not a URL", fix="write it as https://host/path") from error
        if target.scheme not in _PORTS or not target.host:
            raise ToolError("only http:// and https:// URLs with a host are called")
        if target.userinfo:
            raise ToolError("a URL with user or password in it is not called", fix="leave them out")
        ordinary = _host(target) in self._allowed and _port(target) == _PORTS[target.scheme]
        if not ordinary and _with_port(target) not in self._allowed:
            hosts = ", ".join(sorted(self._allowed)) or "none"
            raise ToolError(f"the host {target.netloc.decode()} is not allowed", fix=f"allowed are: {hosts}")
        return target.copy_with(fragment=None)

    async def _addresses(self, target: httpx.URL) -> list[str]:
        """Where to connect to: every address that the host has is checked. Raises `ToolError`."""
        addresses = await self._resolve(_host(target), _port(target))
        if _with_port(target) not in self._allowed and not all(is_public(address) for address in addresses):
            raise ToolError(
                f"the host {_host(target)} has an address that is not public",
                fix=f"it is called only when HTTP_ALLOWED_HOSTS names {_with_port(target)}, with the port",
            )
        return addresses

    @asynccontextmanager
    async def _send(
        self, method: str, target: httpx.URL, headers: Mapping[str, str], content: bytes | None, sent: _Sent
    ) -> AsyncIterator[httpx.Response]:
        # One transport per call and no client around it: no proxy of the environment, no cookies, no redirects.
        async with httpx.AsyncHTTPTransport(verify=self._tls or True, trust_env=False, retries=0) as transport:
            addresses = await self._addresses(target)
            connect_seconds = self._timeout_seconds / len(addresses)
            for address in addresses:
                request = self._request(method, target, address, headers, content, connect_seconds)
                request.extensions["trace"] = sent.watch(method)
                try:
                    response = await transport.handle_async_request(request)
                    break
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if address == addresses[-1]:
                        raise
            try:
                yield response
            finally:
                await response.aclose()

    def _request(
        self,
        method: str,
        target: httpx.URL,
        address: str,
        headers: Mapping[str, str],
        content: bytes | None,
        connect_seconds: float,
    ) -> httpx.Request:
        # Asked for by its address; the name goes into the Host header and, for TLS, into SNI and the check of the
        # certificate: httpcore verifies against `sni_hostname`.
        timeouts = httpx.Timeout(self._timeout_seconds, connect=connect_seconds)
        fixed = {"accept-encoding": "identity", "user-agent": _USER_AGENT, "host": target.netloc.decode()}
        return httpx.Request(
            method,
            target.copy_with(host=address),
            headers={**headers, **fixed},
            content=content,
            extensions={"sni_hostname": _host(target), "timeout": timeouts.as_dict()},
        )

    async def _read(self, response: httpx.Response, target: httpx.URL, sent: _Sent) -> Answer:
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        empty = response.status_code == 204 or response.headers.get("content-length") == "0"
        readable = content_type.startswith(_TEXT_TYPES) or content_type.endswith(("+json", "+xml"))
        compressed = response.headers.get("content-encoding", "identity") != "identity"
        if sent.changing and (compressed or not (empty or readable)):  # its status still tells what became of it
            note = f"[the answer is {'compressed' if compressed else content_type or 'of no type'} and is left out]"
            return Answer(response.status_code, str(target.copy_with(query=None)), content_type, note.encode(), False)
        if not empty and not readable:
            raise ToolError(f"the answer is {content_type or 'of no type'}, not text", fix="ask for JSON or text")
        if compressed:
            raise ToolError("the answer is compressed although that was not asked for", fix="try another URL")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                break
        return Answer(
            status=response.status_code,
            url=str(target.copy_with(query=None)),
            content_type=content_type,
            body=bytes(body[: self._max_bytes]),
            truncated=len(body) > self._max_bytes,
        )


def is_public(address: str) -> bool:
    """Whether `address` lies in the public internet; of an IPv6 address that embeds an IPv4 one, both must."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1]) or _nat64(parsed)
        if inner is not None and not is_public(str(inner)):
            return False
        if parsed.is_site_local:
            return False
    return parsed.is_global and not parsed.is_multicast


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside 64:ff9b::/96 (RFC 6052)."""
    if address in ipaddress.IPv6Network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _port(target: httpx.URL) -> int:
    return target.port or _PORTS[target.scheme]


def _host(target: httpx.URL) -> str:
    """The host as it is looked up: lower case, punycode, no dot at the end."""
    return target.raw_host.decode().lower().rstrip(".")


def _with_port(target: httpx.URL) -> str:
    host = _host(target)
    return f"[{host}]:{_port(target)}" if ":" in host else f"{host}:{_port(target)}"


def _entry(text: str) -> str:
    """An entry of the list of allowed hosts, in the form that `_host` and `_with_port` give."""
    try:
        target = httpx.URL(f"http://{text}")
    except (httpx.InvalidURL, ValueError):
        target = httpx.URL("")
    odd = any(mark in text for mark in " *%@/\\?#")
    if odd or not target.host:
        raise ConfigurationError(
            f"HTTP_ALLOWED_HOSTS: {text!r} is not a host",
            fix='write hosts only, as ["api.example.com", "intranet:8080"]',
        )
    return _with_port(target) if text.rsplit("]", 1)[-1].count(":") == 1 else _host(target)


def _origin(target: httpx.URL) -> tuple[str, str, int]:
    return target.scheme, _host(target), _port(target)


def _redirected(
    status: int, target: httpx.URL, onward: str, method: str, content: bytes | None, headers: Mapping[str, str]
) -> tuple[str, str, bytes | None, dict[str, str]]:
    """(URL, method, body, headers) of the next request, after RFC 9110, 15.4; stricter between origins."""
    try:
        following = target.join(onward)
    except (httpx.InvalidURL, ValueError) as error:
        raise ToolError("the answer redirects to something that is not a URL", fix="try another way") from error
    if target.scheme == "https" and following.scheme == "http":
        raise ToolError("the answer redirects from https to http", fix="try another way")
    same = _origin(following) == _origin(target)
    if method != "GET" and (status in (301, 302, 303) or not same):
        if status in (307, 308):
            raise ToolError("the answer redirects the request to another host", fix="call that host yourself")
        method, content = "GET", None
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    return str(following), method, content, dict(headers) if same else {}
