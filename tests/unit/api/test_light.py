"""What an api process loads: there are many of them, and none executes a graph."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("langgraph", "langchain_core", "openai", "anthropic", "qdrant_client", "onnxruntime", "app.runs.worker")


def test_an_api_process_imports_nothing_that_executes_a_graph() -> None:
    """One import at the top of a shared module costs each process 40 MB or more, and nobody would notice."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, app.api.server, app.cli.main; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    assert "app.api.main" in loaded
    assert [name for name in HEAVY if name in loaded] == []
