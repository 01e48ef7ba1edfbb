"""What the agent can do: the registry, and the built-in tools for documents, a database, HTTP and memory.

Each tool declares its risk, whether it may run twice, and its arguments. A tool never raises for its own
failure: a refused call is a result that the model can act on.
"""
