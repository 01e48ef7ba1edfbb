"""What the built-in agent thinks with: classifier, planner, executor, writer, validator.

Each is an object or a function over the rooms below (tools, memory, models, prompts) and knows nothing of graphs:
state, order and streaming belong to `workflows`.
"""
