"""docs/benchmarks.md: a section per benchmark, each replaced as a whole when it is measured again."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

from tests.support.service import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench`; `make bench ARGS="runs agent"` measures some, `make bench ARGS=cold` the slow one. Numbers
depend on the machine and on what else it does: compare the columns of one table, which one run measured, rather than
tables of two days. A target that is missed says so, with what takes the time.
"""


def machine() -> str:
    """What the figures were measured on, in a line."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) / 2**20
    name = model[1].strip() if model else platform.machine()
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores ({name}), "
        f"{memory:.0f} GiB, Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f} before."
    )


def write(name: str, text: str, page: Path = PAGE) -> None:
    """Put `text` in the place of the section `name`; a new one goes to the end."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    section = f"{begin}\n{text.strip()}\n{end}\n"
    content = page.read_text() if page.exists() else HEAD
    before, found, rest = content.partition(begin)
    after = rest.partition(f"{end}\n")[2]
    page.write_text(before + section + after if found else f"{content.rstrip()}\n\n{section}")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"
