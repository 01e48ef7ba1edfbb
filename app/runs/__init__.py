"""What makes a run durable: the ledger (who owns a run), its event stream, and the worker that executes it.

Rests on `workflows` (the graphs) and on the rooms below; HTTP does not belong here. The api process imports the
ledger and the events only, never the worker: it must stay light.
"""
