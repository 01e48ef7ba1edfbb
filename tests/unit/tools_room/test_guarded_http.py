"""The gates before an HTTP call, without a network."""

from __future__ import annotations

import pytest

from app.infra.errors import ConfigurationError
from app.tools.guarded_http import GuardedHttp, is_public
from app.tools.tool import ToolError


async def nowhere(_host: str, _port: int) -> list[str]:
    raise AssertionError("a URL that is refused must not even be looked up")


async def refused(http: GuardedHttp, url: str) -> str:
    with pytest.raises(ToolError) as error:
        await http.request("GET", url)
    return str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example.com/",
        "https://api.example.com.evil.com/",
        "https://evil.com/?api.example.com",
        "https://evil.com#api.example.com",
        "https://api.example.com@evil.com/",
        "https://evil.com\\@api.example.com/",
        "https://user@api.example.com/",
        "https://user:secret@api.example.com/",
        "https://api.example.com:8443/",
        "http://api.example.com:443/",
        "ftp://api.example.com/",
        "file:///etc/passwd",
        "gopher://api.example.com/",
        "//api.example.com/",
        "api.example.com",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost/",
        "https://api.example.com\r\nx: y/",
        "https://",
        "",
    ],
)
async def test_a_url_that_is_not_of_an_allowed_host_is_refused_before_it_is_looked_up(url: str) -> None:
    """A model writes the URL, and documents that it reads can make it write this one."""
    http = GuardedHttp(["api.example.com"], timeout_seconds=1, max_bytes=1_000, resolver=nowhere)
    assert "secret" not in await refused(http, url)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["172.16.0.1"],
        ["192.168.1.1"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["255.255.255.255"],
        ["::1"],
        ["::"],
        ["fe80::1%eth0"],
        ["fc00::1"],
        ["fd12:3456::1"],
        ["ff02::1"],
        ["::ffff:127.0.0.1"],
        ["::ffff:10.0.0.1"],
        ["2002:7f00:1::"],
        ["64:ff9b::7f00:1"],
        ["93.184.216.34", "127.0.0.1"],
    ],
)
async def test_an_allowed_name_with_an_inner_address_is_not_called(addresses: list[str]) -> None:
    """Whoever runs that name's DNS would choose which of our machines is called; one bad address of many is enough."""

    async def resolver(_host: str, _port: int) -> list[str]:
        return addresses

    http = GuardedHttp(["api.example.com"], timeout_seconds=1, max_bytes=1_000, resolver=resolver)
    assert "not public" in await refused(http, "https://api.example.com/")


def test_public_addresses_are_told_from_others() -> None:
    """The list above must not be refused for a reason that refuses everything."""
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")
    assert is_public("64:ff9b::5db8:d822")
    assert not is_public("not an address")


@pytest.mark.parametrize(
    "entry", ["https://api.example.com", "api.example.com/path", "*.example.com", "", "a b", "u@h"]
)
def test_a_wrong_entry_of_the_list_stops_the_start(entry: str) -> None:
    """An entry that never matches would be found by a user, months later."""
    with pytest.raises(ConfigurationError, match="HTTP_ALLOWED_HOSTS"):
        GuardedHttp([entry], timeout_seconds=1, max_bytes=1_000)


async def test_the_name_that_is_looked_up_is_the_name_of_the_list() -> None:
    """Capitals, a dot at the end and letters beyond ASCII are the same host, written differently."""
    asked: list[tuple[str, int]] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["10.0.0.1"]

    http = GuardedHttp(["API.example.com", "bücher.example"], timeout_seconds=1, max_bytes=1_000, resolver=resolver)
    for url in ("https://api.EXAMPLE.com./x", "http://bücher.example/", "http://xn--bcher-kva.example/"):
        await refused(http, url)
    assert asked == [("api.example.com", 443), ("xn--bcher-kva.example", 80), ("xn--bcher-kva.example", 80)]
