"""HTTP: translates requests into one call of the ledger or the hub, and what comes back into JSON or SSE.

Admits and reads; executes nothing. It imports no graph and no model client, so that an api process stays light.
"""
