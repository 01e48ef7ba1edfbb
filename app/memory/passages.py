"""A folder of Markdown and text, cut into passages: a heading's section each, or a part of a long one."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.infra.logging import get_logger

_log = get_logger(__name__)

SUFFIXES: Final = (".md", ".markdown", ".txt")
MAX_PASSAGE_CHARS: Final = 900
"""About 200 tokens of English prose: what the bundled embedding model reads of a text, with its title."""
_MAX_FILE_BYTES: Final = 2_000_000
_IDS: Final = uuid.UUID("9a4b3f0e-6a53-4b2b-8f0e-0f6f2c1d7e11")
_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.+?)\s*#*\s*$")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document. `id` follows from path, anchor and text: the same piece has the same id everywhere."""

    id: str
    title: str
    """The document's title and the section's, joined by ` › `."""
    path: str
    """Relative to the folder, with `/`."""
    anchor: str
    """The section's, as GitHub forms it; empty before the first heading."""
    line: int
    """Where it begins in the file, from 1."""
    text: str = field(repr=False)

    @property
    def uri(self) -> str:
        return f"{self.path}#{self.anchor}" if self.anchor else self.path

    @property
    def embedded(self) -> str:
        """What is embedded and matched by word: the text under its title."""
        return f"{self.title}\n{self.text}"


Fingerprint = tuple[tuple[str, int, int], ...]
"""Path, time of change in ns and size of each file: differs when the folder may have changed."""


def fingerprint(folder: Path) -> Fingerprint:
    """What the folder looks like now; empty when it is not there."""
    return tuple((path.relative_to(folder).as_posix(), *_stat(path)) for path in _files(folder))


def read(folder: Path) -> list[Passage]:
    """All passages, in order of path and line. Files that are too large or unreadable are left out, and logged."""
    passages: list[Passage] = []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            if path.stat().st_size > _MAX_FILE_BYTES:
                _log.warning("documents.skipped", path=name, reason=f"over {_MAX_FILE_BYTES} bytes")
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            _log.warning("documents.skipped", path=name, reason=type(error).__name__)
            continue
        passages += cut(name, text)
    return passages


def _files(folder: Path) -> list[Path]:
    root = folder.resolve()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and path.resolve().is_relative_to(root)  # a link must not lead out of the folder
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # gone since it was listed
        return 0, 0
    return status.st_mtime_ns, status.st_size


def cut(path: str, text: str) -> list[Passage]:
    """The passages of one document."""
    document = Path(path).stem.replace("-", " ").replace("_", " ")
    seen: Counter[str] = Counter()
    passages: list[Passage] = []
    for section in _sections(text):
        if section.level == 1 and section.heading:
            document = section.heading
        anchor = _anchor(section.heading, seen) if section.heading else ""
        inner = section.heading and section.heading != document
        title = f"{document} › {section.heading}" if inner else document
        for line, piece in _pieces(section.lines, section.line):
            digest = hashlib.sha256("\0".join((path, anchor, title, piece)).encode()).hexdigest()
            passages.append(Passage(str(uuid.uuid5(_IDS, digest)), title, path, anchor, line, piece))
    return passages


@dataclass(slots=True)
class _Section:
    heading: str
    level: int
    line: int
    """Of the first line after the heading."""
    lines: list[str]


def _sections(text: str) -> Iterator[_Section]:
    lines = text.splitlines()
    begin = _after_front_matter(lines)
    section = _Section("", 0, begin + 1, [])
    fence = ""
    for number, line in enumerate(lines[begin:], start=begin + 1):
        mark = _FENCE.match(line)
        if mark:
            if not fence:
                fence = mark[1]
            elif mark[1].startswith(fence):
                fence = ""
        heading = None if fence or mark else _HEADING.match(line)
        if heading:
            yield section
            section = _Section(_plain(heading[2]), len(heading[1]), number + 1, [])
        else:
            section.lines.append(line)
    yield section


def _after_front_matter(lines: list[str]) -> int:
    """Index of the first line behind a leading `---` block of metadata."""
    if lines and lines[0].strip() == "---" and "---" in (stripped := [line.strip() for line in lines[1:]]):
        return stripped.index("---") + 2
    return 0


def _plain(heading: str) -> str:
    """A heading without its marks: links keep their text, code and emphasis their content."""
    return re.sub(r"[`*]", "", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip()


def _anchor(heading: str, seen: Counter[str]) -> str:
    """As GitHub: lower case, spaces to hyphens, other marks gone, repeats numbered."""
    slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    seen[slug] += 1
    return slug if seen[slug] == 1 else f"{slug}-{seen[slug] - 1}"


def _pieces(lines: list[str], first: int) -> Iterator[tuple[int, str]]:
    """(line number, text) of parts of at most MAX_PASSAGE_CHARS, cut between paragraphs where that is possible."""
    part: list[str] = []
    size, begun = 0, first
    for number, block in _blocks(lines, first):
        if part and size + len(block) > MAX_PASSAGE_CHARS:
            yield begun, "\n\n".join(part)
            part, size = [], 0
        if not part:
            begun = number
        part.append(block)
        size += len(block)
    if part:
        yield begun, "\n\n".join(part)


def _blocks(lines: list[str], first: int) -> Iterator[tuple[int, str]]:
    """Paragraphs with their line numbers; one that is too long comes in parts, cut at line ends or at the limit."""
    block: list[str] = []
    begun = first
    for number, line in enumerate([*lines, ""], start=first):
        too_long = block and sum(map(len, block)) + len(line) > MAX_PASSAGE_CHARS
        if block and (not line.strip() or too_long):
            yield begun, "\n".join(block)
            block = []
        if line.strip():
            if not block:
                begun = number
            while len(line) > MAX_PASSAGE_CHARS:
                end = line.rfind(" ", 1, MAX_PASSAGE_CHARS) + 1 or MAX_PASSAGE_CHARS
                yield number, line[:end].rstrip()
                line = line[end:]
            block.append(line)
