"""Copies all collections of a Qdrant into one archive, or back from one. Python's standard library only.

    qdrant_backup.py save      FOLDER/qdrant-<UTC time>.tar, with one snapshot per collection; KEEP archives stay
    qdrant_backup.py restore   from BACKUP, the newest where it is empty: each collection in it becomes as it was

QDRANT_URL says where it is, API_KEY_FILE holds its key. An archive has its name only once it is complete.
https://api.qdrant.tech/api-reference/snapshots/
"""
# ruff: noqa: T201 - what it prints is the Job's log

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_SECONDS = 600
_BLOCK = 1 << 20
_ARCHIVE = re.compile(r"^qdrant-\d{8}T\d{6}Z\.tar$")


class Qdrant:
    """The few calls that are needed. Raises SystemExit with Qdrant's status, never with its key."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = urllib.parse.urlsplit(url), key
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            sys.exit("qdrant_backup: QDRANT_URL is no URL, such as http://qdrant:6333")

    def ask(
        self, method: str, path: str, body: Iterator[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """The answer as an open response; the caller reads and closes it."""
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(str(self._url.hostname), self._url.port, timeout=_SECONDS)
        connection.request(method, path, body, {"api-key": self._key, **(headers or {})})
        response = connection.getresponse()
        if response.status != 200:
            sys.exit(f"qdrant_backup: {method} {path} was answered {response.status} {response.reason}")
        return response

    def json(self, method: str, path: str) -> Any:
        with self.ask(method, path) as response:
            return json.load(response)["result"]

    def collections(self) -> list[str]:
        return [found["name"] for found in self.json("GET", "/collections")["collections"]]

    def download(self, collection: str, target: Path) -> None:
        """One snapshot of a collection, made, fetched into `target`, and removed from Qdrant's disk again."""
        path = f"/collections/{urllib.parse.quote(collection, safe='')}/snapshots"
        made = urllib.parse.quote(self.json("POST", path)["name"], safe="")
        try:
            with self.ask("GET", f"{path}/{made}") as response, target.open("wb") as file:
                shutil.copyfileobj(response, file, _BLOCK)
        finally:
            self.ask("DELETE", f"{path}/{made}").close()

    def upload(self, collection: str, source: Path) -> None:
        """Makes the collection what the snapshot says."""
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\ncontent-disposition: form-data; name="snapshot"; filename="snapshot"\r\n'
            "content-type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        size = len(head) + source.stat().st_size + len(tail)

        def parts() -> Iterator[bytes]:
            yield head
            with source.open("rb") as file:
                while block := file.read(_BLOCK):
                    yield block
            yield tail

        path = f"/collections/{urllib.parse.quote(collection, safe='')}/snapshots/upload?priority=snapshot&wait=true"
        headers = {"content-type": f"multipart/form-data; boundary={boundary}", "content-length": str(size)}
        self.ask("POST", path, parts(), headers).close()


def save(qdrant: Qdrant, folder: Path, keep: int) -> None:
    name = f"qdrant-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"
    part = folder / f".{name}.part"
    try:
        with tarfile.open(part, "w") as archive, tempfile.TemporaryDirectory(dir=folder) as scratch:
            for number, collection in enumerate(sorted(qdrant.collections())):
                snapshot = Path(scratch) / str(number)
                qdrant.download(collection, snapshot)
                archive.add(snapshot, urllib.parse.quote(collection, safe=""))
                snapshot.unlink()
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(folder / name)
    finally:
        part.unlink(missing_ok=True)
    print(f"qdrant_backup: wrote {name}, {(folder / name).stat().st_size} bytes")
    for old in sorted(archives(folder), reverse=True)[keep:]:
        (folder / old).unlink()
        print(f"qdrant_backup: removed {old}")


def restore(qdrant: Qdrant, folder: Path, wanted: str) -> None:
    there = sorted(archives(folder))
    name = wanted or (there[-1] if there else "")
    if name not in there:
        sys.exit(f"qdrant_backup: there is no archive {name or 'at all'}; there are: {', '.join(there) or 'none'}")
    with tarfile.open(folder / name) as archive, tempfile.TemporaryDirectory() as scratch:
        for member in archive:
            snapshot = Path(scratch) / "snapshot"
            packed = archive.extractfile(member)
            if packed is None:
                sys.exit(f"qdrant_backup: {name} is none of our archives: {member.name} is no file")
            with packed, snapshot.open("wb") as file:
                shutil.copyfileobj(packed, file, _BLOCK)
            collection = urllib.parse.unquote(member.name)
            qdrant.upload(collection, snapshot)
            print(f"qdrant_backup: restored {collection} from {name}")


def archives(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if _ARCHIVE.match(path.name)]


def main(command: str) -> None:
    qdrant = Qdrant(os.environ["QDRANT_URL"], Path(os.environ["API_KEY_FILE"]).read_text().strip())
    folder = Path(os.environ["FOLDER"])
    if command == "save":
        save(qdrant, folder, int(os.environ["KEEP"]))
    elif command == "restore":
        restore(qdrant, folder, os.environ.get("BACKUP", ""))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else "")
