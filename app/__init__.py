"""The agent service: one image, two commands (`python -m app api`, `python -m app worker`).

Imports go one way: api -> runs -> workflows -> agents -> tools, memory, models, prompts -> infra.
Nothing here imports `components` or `stacks`.
"""

import os

# Read by LangGraph at its import: stored bytes may then name only types of a graph's own schemas and a list of safe
# ones. Otherwise whoever can write to Redis could have any importable class called; see `app.memory.checkpoints`.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
