"""What a bare machine downloads: the right file, from the right place, and only if it is that file."""

from __future__ import annotations

import hashlib
import ssl
import urllib.error
from email.message import Message
from pathlib import Path

import pytest

from tools.provision import fetch, pins
from tools.provision.console import Failure
from tools.provision.platforms import Platform, this_platform
from tools.provision.pulumi_cli import checksum_in, release_file

PLATFORMS = [Platform(system, machine) for system in ("linux", "darwin") for machine in ("x86_64", "aarch64")]


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("Linux", "x86_64", Platform("linux", "x86_64")),
        ("Linux", "AMD64", Platform("linux", "x86_64")),
        ("Linux", "aarch64", Platform("linux", "aarch64")),
        ("Darwin", "arm64", Platform("darwin", "aarch64")),
    ],
)
def test_a_machine_is_known_by_any_of_its_names(system: str, machine: str, expected: Platform) -> None:
    """Kernels, Python and publishers spell the same processor differently."""
    assert this_platform(system, machine, libc="glibc") == expected


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Linux", "riscv64")])
def test_a_machine_without_files_is_refused_with_the_way_out(system: str, machine: str) -> None:
    """A wheel for another machine would fail much later, with "cannot execute binary file"."""
    with pytest.raises(Failure, match=f"{system.lower()} on {machine.lower()}") as raised:
        this_platform(system, machine, libc="glibc")
    assert "Linux or macOS" in raised.value.fix


def test_musl_is_refused_by_name() -> None:
    """Alpine would get as far as a missing loader, which says nothing to anybody."""
    with pytest.raises(Failure, match="musl"):
        this_platform("Linux", "x86_64", libc="musl")


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
@pytest.mark.parametrize("table", ["UV", "GO", "NODE"])
def test_every_platform_has_each_wheel_for_its_own_processor(platform: Platform, table: str) -> None:
    """One copied line would hand a Mac the Linux program, past the hash check."""
    wheel: pins.Wheel = getattr(pins, table)[platform]
    tags = {"linux": "manylinux", "darwin": "macosx"}[platform.system]
    names = {"x86_64": ["x86_64"], "aarch64": ["aarch64", "arm64"]}[platform.machine]
    assert tags in wheel.file
    assert any(f"_{name}" in wheel.file for name in names)
    assert len(wheel.sha256) == 64


def test_the_wheels_of_a_table_are_one_version_and_differ() -> None:
    """A version is raised for all platforms or for none."""
    for table in (pins.UV, pins.GO, pins.NODE):
        assert len({wheel.file.split("-")[1] for wheel in table.values()}) == 1
        assert len({wheel.sha256 for wheel in table.values()}) == len(table)


def test_pulumis_pins_agree() -> None:
    """Program and SDK are pinned in three files; they are made for each other only when equal."""
    root = Path(__file__).resolve().parents[3]
    assert f'"pulumi=={pins.PULUMI}"' in (root / "pyproject.toml").read_text()
    go_mod = (root / "tools/pulumi-cli/go.mod").read_text()
    assert f"github.com/pulumi/pulumi/pkg/v3 v{pins.PULUMI}\n" in go_mod
    assert f"github.com/pulumi/pulumi/sdk/v3 v{pins.PULUMI}" in go_mod


def test_another_file_is_refused_and_deleted(tmp_path: Path) -> None:
    """What an index or proxy hands out under the right name is run as a program."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"something else")
    expected = hashlib.sha256(b"the file").hexdigest()
    with pytest.raises(Failure, match="another hash") as raised:
        fetch.download(source.as_uri(), target, expected, what="a program")
    assert expected in raised.value.what
    assert not target.exists()


def test_the_expected_file_is_kept(tmp_path: Path) -> None:
    """The other half: a check that refuses all would pass the test above."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"the file")
    fetch.download(source.as_uri(), target, hashlib.sha256(b"the file").hexdigest(), what="a program")
    assert target.read_bytes() == b"the file"


PAGE = """<!DOCTYPE html><html><body>
<a href="https://files.example/aa/uv-1-py3-none-any.whl#sha256=00">uv-1-py3-none-any.whl</a>
<a href="../../packages/bb/uv-2%2B1-py3-none-any.whl#sha256=11" data-requires-python="&gt;=3.8">uv-2+1</a>
</body></html>"""


def test_a_link_of_an_index_is_found_by_file_name() -> None:
    """Absolute links as PyPI has them, relative and quoted ones as mirrors do."""
    base = "https://mirror.example/simple/uv/"
    assert fetch.link_of(PAGE, base, "uv-1-py3-none-any.whl") == "https://files.example/aa/uv-1-py3-none-any.whl"
    mirrored = "https://mirror.example/packages/bb/uv-2%2B1-py3-none-any.whl"
    assert fetch.link_of(PAGE, base, "uv-2+1-py3-none-any.whl") == mirrored
    assert fetch.link_of(PAGE, base, "uv-3-py3-none-any.whl") is None


def test_an_indexs_password_goes_to_its_own_host_only() -> None:
    """An index may list files on any host; it must not be able to send the password there."""
    base = "https://me:word@mirror.example/simple/uv/"
    other = fetch.link_of(PAGE, base, "uv-1-py3-none-any.whl")
    own = fetch.link_of(PAGE, base, "uv-2+1-py3-none-any.whl")
    assert other == "https://files.example/aa/uv-1-py3-none-any.whl"
    assert own is not None
    request = fetch.request(own)
    assert request.host == "mirror.example"
    assert request.unredirected_hdrs["Authorization"] == "Basic bWU6d29yZA=="


def test_an_address_is_shown_without_its_password() -> None:
    """It ends up in terminals and in logs of CI."""
    shown = fetch.without_credentials("https://me:word@mirror.example/simple/uv/?token=abc")
    assert shown == "https://mirror.example/simple/uv/"


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"])
def test_the_users_index_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a company's walls PyPI itself is often out of reach."""
    for other in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(other, raising=False)
    assert fetch.index_url() == fetch.PYPI
    monkeypatch.setenv(name, "https://mirror.example/simple/")
    assert fetch.index_url() == "https://mirror.example/simple"


def test_a_missing_certificate_names_the_package_to_install() -> None:
    """On a bare Debian that is the first thing to go wrong; trying again cannot help."""
    reason = ssl.SSLCertVerificationError(1, "certificate verify failed")
    reason.verify_message = "unable to get local issuer certificate"
    found = fetch.explained("https://pypi.org/simple/uv/", urllib.error.URLError(reason))
    assert "ca-certificates" in found.fix
    assert "SSL_CERT_FILE" in found.fix
    assert not found.passing


def test_an_unreachable_host_is_tried_again_and_a_missing_file_is_not() -> None:
    """Retrying what cannot succeed only makes the user wait."""
    assert fetch.explained("https://pypi.org/x", urllib.error.URLError(ConnectionRefusedError(111, "refused"))).passing
    assert fetch.explained("https://pypi.org/x", TimeoutError("timed out")).passing
    gone = urllib.error.HTTPError("https://pypi.org/x", 404, "Not Found", Message(), None)
    busy = urllib.error.HTTPError("https://pypi.org/x", 503, "Busy", Message(), None)
    assert not fetch.explained("https://pypi.org/x", gone).passing
    assert fetch.explained("https://pypi.org/x", busy).passing


def test_a_releases_checksum_is_found_by_its_whole_name() -> None:
    """The list names many files, some of which contain the name of another."""
    file = release_file(Platform("linux", "x86_64"))
    listing = f"{'a' * 64}  {file}.sbom\n{'B' * 64} *{file}\n{'c' * 10}  other.tar.gz\n"
    assert file == f"pulumi-v{pins.PULUMI}-linux-x64.tar.gz"
    assert checksum_in(listing, file) == "b" * 64
    assert checksum_in(listing, "other.tar.gz") is None
    assert checksum_in("", file) is None
