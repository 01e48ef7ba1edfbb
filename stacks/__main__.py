"""What `pulumi up` runs. Pulumi starts it in this folder, so the repository is put on the path first."""

from __future__ import annotations

import sys
from pathlib import Path

# In the place of this folder, whose modules must not shadow installed packages.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from stacks.program import run  # noqa: E402

run()
