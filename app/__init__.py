"""The agent service: one image, two commands (`python -m app api`, `python -m app worker`).

Imports go one way: api -> runs -> workflows -> agents -> tools, memory, models, prompts -> infra.
Nothing here imports `components` or `stacks`.
"""
