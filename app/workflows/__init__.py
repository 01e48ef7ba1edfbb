"""The graphs: the built-in agent (`graph`, `state`, `nodes/`) and the registry of all graphs in `langgraph.json`.

A node turns state into an update and calls the agents, which do the thinking; which node comes next is decided by
the plain functions in `routes`.
"""
