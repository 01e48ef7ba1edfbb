"""Started by Pulumi (`PulumiPlugin.yaml`) as `python <this folder> <address of the engine>`."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this folder first, whose `redis.py` and `secrets.py` are not those that anybody means.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from components.kubernetes.plugin import main  # noqa: E402

if __name__ == "__main__":
    main()
