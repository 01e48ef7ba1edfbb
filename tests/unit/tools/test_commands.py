"""The commands that people, hooks and workflows use are the Makefile's, and all of them are listed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(path: Path) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(path.read_text())
    return loaded


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in workflow(path)["jobs"].values():
        yield from job["steps"]


def targets_used(script: str) -> set[str]:
    """The targets in the `make` calls of a shell script."""
    used: set[str] = set()
    for call in re.findall(r"(?:^|[;&|(\s])make((?:\s+[\w=\"'/.${}\s-]+?)?)(?=$|[;&|)\n])", script, re.MULTILINE):
        used |= {word for word in call.split() if re.fullmatch(r"[a-z][a-z-]+", word)}
    return used


def test_make_alone_lists_every_target() -> None:
    """A target without its comment would be one that nobody finds."""
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE)
    assert set(listed) == TARGETS
    assert len(listed) == len(set(listed))


def test_every_target_is_phony() -> None:
    """`tests`, `docs` or `up`: a file of that name would make the target do nothing."""
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == TARGETS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_digest(path: Path) -> None:
    """A tag can be moved to other code, and has been; the comment says which release the digest is."""
    lines = [line for line in path.read_text().splitlines() if re.search(r"^\s*(- )?uses:", line)]
    assert lines
    for line in lines:
        assert re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)+$", line), line.strip()


def test_one_action_has_one_digest_everywhere() -> None:
    """Otherwise an update reaches half of them."""
    digests: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, digest in re.findall(r"uses: ([\w./-]+)@(\S+ # \S+)", path.read_text()):
            digests.setdefault(name, set()).add(digest)
    assert {name: found for name, found in digests.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_no_more_unless_a_job_says_so(path: Path) -> None:
    """The default token can write to the repository."""
    loaded = workflow(path)
    assert loaded["permissions"] == {"contents": "read"}
    for job in loaded["jobs"].values():
        assert job.get("permissions", {}).get("contents", "read") == "read"
        assert "timeout-minutes" in job


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_a_concurrency_group(path: Path) -> None:
    """Two deployments at once undo each other."""
    assert workflow(path)["concurrency"]["group"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_checkout_leaves_no_token_behind(path: Path) -> None:
    """Everything that runs later could push with it."""
    checkouts = [step for step in steps(path) if str(step.get("uses", "")).startswith("actions/checkout@")]
    assert checkouts
    for step in checkouts:
        assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_scripts_get_secrets_and_names_from_the_environment(path: Path) -> None:
    """Pasted into a script, a branch's name is code, and a secret stands in the process list."""
    for step in steps(path):
        for expression in re.findall(r"\$\{\{(.*?)\}\}", step.get("run", "")):
            assert expression.strip().startswith("matrix."), f"{expression} in {step}"


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_only_targets_that_exist_are_called(path: Path) -> None:
    """A renamed target would be noticed on the main branch, or at night."""
    if path.suffix == ".yml":
        scripts = "\n".join(str(step.get("run", "")) for step in steps(path))
    else:
        scripts = "\n".join(re.findall(r"^step \"[^\"]*\" (.*)$", path.read_text(), re.MULTILINE))
    used = targets_used(scripts)
    assert used <= TARGETS
    assert used or "make" not in scripts


def test_the_search_for_targets_finds_them() -> None:
    """The test above must not pass because it sees nothing."""
    assert targets_used('make check\n[ -n "$X" ] || make up STACK=prod ARGS="a b"\nmake refresh up') == {
        "check",
        "up",
        "refresh",
    }


def test_every_stack_is_previewed_on_every_push() -> None:
    """A stack that nobody previews is found broken on the day of its deployment."""
    stacks = {path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml")}
    ci = workflow(ROOT / ".github" / "workflows" / "ci.yml")
    assert set(ci["jobs"]["preview"]["strategy"]["matrix"]["stack"]) == stacks


def test_the_oldest_supported_python_is_tested() -> None:
    """`requires-python` is a promise."""
    (least,) = re.findall(r'^requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    ci = workflow(ROOT / ".github" / "workflows" / "ci.yml")
    assert ci["jobs"]["unit"]["strategy"]["matrix"]["python"][0] == least
