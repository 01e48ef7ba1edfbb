"""A bootstrap that is ended leaves no program running and nothing half made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HALF_DONE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tools import bootstrap
from tools.provision import cache
from tools.provision.console import run_logged

def install(folder: Path) -> None:
    (folder / "half").touch()
    work = f"cd {cache.cache_root()}; echo $$ > pid; echo > begun; exec sleep 60"
    run_logged("Building", ["sh", "-c", work], log=cache.logs() / "log", fix="-")

bootstrap.aimock = lambda: cache.installed("thing", "1", install)
sys.exit(bootstrap.main(["aimock"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_ended_bootstrap_takes_its_child_along(number: signal.Signals, tmp_path: Path) -> None:
    """A build of five minutes would go on for nobody, into a folder that the next run clears away."""
    os.mkfifo(tmp_path / "begun")
    process = subprocess.Popen(
        [sys.executable, "-c", HALF_DONE, str(ROOT)],
        env={**os.environ, "SLIPWAY_CACHE": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    (tmp_path / "begun").read_text()  # blocks until the child has begun
    child = int((tmp_path / "pid").read_text())
    process.send_signal(number)
    _, words = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in words
    assert "Traceback" not in words
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert list((tmp_path / "thing").iterdir()) == []
