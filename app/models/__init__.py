"""Which models there are, what each can do and costs, and the clients that call them.

The api process reads only `registry`, `prices` and `reachability`: nothing heavy is imported here. `clients` builds
LangChain chat models and is for the worker.
"""
