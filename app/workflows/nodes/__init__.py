"""The nodes of the built-in agent: classify, plan, execute, answer, validate, compose.

Each module has one factory that takes the services and gives the node; a node takes state and runtime and gives an
update. Nothing here decides what comes next.
"""
