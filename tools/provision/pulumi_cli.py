"""Pulumi's command line with its Python language host: from PATH, else the official release, else built with Go.

    PATH             used if not older than the SDK and `pulumi-language-python` is there too
    official release 150 MB from get.pulumi.com. Pulumi publishes no hash that could be pinned ahead for every platform,
                     so it is checked against the release's own list of checksums, which comes from another host
                     (github.com), both over TLS. Not fetched where those cannot be reached within seconds.
    built            from published Go modules, pinned by go.sum: for networks that let package registries through only

A built one cannot fetch provider plugins on such a network; `Pulumi.builds_here` says so to whoever starts it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.provision import cache, fetch
from tools.provision.console import Failure, Progress, run_logged, say
from tools.provision.environment import REPOSITORY
from tools.provision.go import BuildCaches, go
from tools.provision.pins import PULUMI
from tools.provision.platforms import Platform, this_platform
from tools.provision.programs import on_path

RELEASE = "https://get.pulumi.com/releases/sdk/pulumi-v{version}-{platform}.tar.gz"
CHECKSUMS = "https://github.com/pulumi/pulumi/releases/download/v{version}/pulumi-{version}-checksums.txt"
REACH_SECONDS = 6.0
"""Longest wait for the release's hosts. Includes the look-up of the name, which has no time limit of its own."""
BUILD_GIGABYTES = 5.0

LANGUAGE_HOST = "pulumi-language-python"


@dataclass(frozen=True)
class Pulumi:
    """The folder with `pulumi`; whether we built it ourselves."""

    folder: Path
    built_here: bool

    @property
    def program(self) -> Path:
        return self.folder / "pulumi"


def pulumi() -> Pulumi:
    """A Pulumi that can run this repository's program. `Failure` when there is no way to get one."""
    least = tuple(int(part) for part in PULUMI.split("."))
    if (found := on_path("pulumi", least, "version")) and has_language_host(found):
        return Pulumi(found.parent, built_here=False)
    platform = this_platform()
    key = f"{PULUMI}-{platform}"
    for kind in ("release", "build"):
        if (folder := cache.cache_root() / f"pulumi-{kind}" / key).is_dir():
            return Pulumi(folder, built_here=kind == "build")
    if checksums := official_checksums(platform):
        return Pulumi(_install_release(platform, key, checksums), built_here=False)
    return Pulumi(_build(key), built_here=True)


def has_language_host(program: Path) -> bool:
    """Whether the Python language host is on PATH, or beside the program (behind a link too)."""
    beside = (program.parent / LANGUAGE_HOST, program.resolve().parent / LANGUAGE_HOST)
    return shutil.which(LANGUAGE_HOST) is not None or any(path.is_file() for path in beside)


def official_checksums(platform: Platform) -> str | None:
    """The expected sha256 of the official release; None where its hosts cannot be reached."""
    answers: list[bytes] = []

    def ask() -> None:
        try:
            listed = fetch.read_once(CHECKSUMS.format(version=PULUMI), timeout=REACH_SECONDS)
            fetch.read_once(
                RELEASE.format(version=PULUMI, platform=platform.pulumi_name), timeout=REACH_SECONDS, limit=1
            )
        except fetch.Unreachable:
            return
        answers.append(listed)

    asking = threading.Thread(target=ask, daemon=True)
    with Progress("Looking for Pulumi's official release"):
        asking.start()
        asking.join(REACH_SECONDS)
    return checksum_in(answers[0].decode("ascii", "replace"), release_file(platform)) if answers else None


def release_file(platform: Platform) -> str:
    return RELEASE.format(version=PULUMI, platform=platform.pulumi_name).rpartition("/")[2]


def checksum_in(listing: str, file: str) -> str | None:
    """The sha256 that a `sha256sum` listing has for a file."""
    for line in listing.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].lstrip("*./") == file and len(words[0]) == hashlib.sha256().digest_size * 2:
            return words[0].lower()
    return None


def _install_release(platform: Platform, key: str, sha256: str) -> Path:
    def install(folder: Path) -> None:
        say(f"Pulumi {PULUMI} is missing here: fetching the official release, about 150 MB")
        archive = folder / release_file(platform)
        url = RELEASE.format(version=PULUMI, platform=platform.pulumi_name)
        fetch.download(url, archive, sha256, what=f"Pulumi {PULUMI}")
        with tarfile.open(archive) as files:
            for member in files:
                # One folder of plain files. Taken out by name, since Debian's Python has no extraction filters yet.
                content = files.extractfile(member) if member.isfile() else None
                if content is not None:
                    program = folder / Path(member.name).name
                    with program.open("wb") as output:
                        shutil.copyfileobj(content, output)
                    program.chmod(0o755)
        archive.unlink()
        if not has_language_host(folder / "pulumi"):
            raise Failure(f"Pulumi's release has no {LANGUAGE_HOST}", fix="install Pulumi by hand and put it on PATH")

    return cache.installed("pulumi-release", key, install)


def _build(key: str) -> Path:
    def install(folder: Path) -> None:
        say(
            f"Pulumi {PULUMI} is missing here and its downloads cannot be reached: building it from Go modules. "
            "That takes about 5 minutes on 2 cores, once"
        )
        cache.needs_space(BUILD_GIGABYTES, "building Pulumi")
        program = go()
        caches = BuildCaches(program)
        environment = caches.environment()
        _go_build(program, environment, "pulumi-cli", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi", folder / "pulumi")
        language = "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"
        _go_build(program, environment, "pulumi-language-python", language, folder / LANGUAGE_HOST)
        _copy_scripts(program, environment, folder)
        caches.remove()  # not after a failure: the next attempt goes on from there

    return cache.installed("pulumi-build", key, install)


def _go_build(go_program: Path, environment: Mapping[str, str], module: str, package: str, output: Path) -> None:
    flags = f"-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{PULUMI}"
    run_logged(
        f"Building {output.name}",
        # grpcnotrace: as upstream builds it; without it the linker cannot leave out unused code.
        [go_program, "build", "-v", "-tags", "grpcnotrace", "-ldflags", flags, "-o", output, package],
        cwd=REPOSITORY / "tools" / module,
        env=environment,
        log=cache.logs() / f"build-{output.name}.log",
        count="of about 1,940 modules and packages" if output.name == "pulumi" else "modules and packages",
        fix="read the lines above. Network: check it, HTTPS_PROXY and GOPROXY. Or install Pulumi yourself "
        f"(version {PULUMI} or newer, https://www.pulumi.com/docs/install) and run the command again",
    )


def _copy_scripts(go_program: Path, environment: Mapping[str, str], folder: Path) -> None:
    """The two scripts that the language host and the engine start lie in the SDK's module as they are."""
    listing = [str(go_program), "list", "-m", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3"]
    try:
        done = subprocess.run(
            listing,
            cwd=REPOSITORY / "tools" / "pulumi-cli",
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise Failure(
            f"Go cannot find Pulumi's SDK module: {error.stderr.strip()}", fix="run the command again"
        ) from None
    module = Path(done.stdout.strip())
    for script in ("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python"):
        copy = folder / Path(script).name
        shutil.copyfile(module / script, copy)
        copy.chmod(0o755)
