"""Run by the pickle of a dynamic provider (see `dynamic`), with `wanted`: module and name of its class.

Leaves the provider as `provider`. Runs in the program's folder, before the repository can be imported.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_HERE = Path.cwd()
_REPOSITORY = Path(__file__).resolve().parents[2]
# The program's own folder comes off the path: its modules must not shadow installed packages.
sys.path[:] = [str(_REPOSITORY), *(entry for entry in sys.path if entry not in ("", ".", str(_HERE), str(_REPOSITORY)))]

_module, _name = globals()["wanted"]
provider: Any = getattr(importlib.import_module(_module), _name)()
