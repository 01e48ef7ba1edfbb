"""What makes a run durable: the ledger (who owns a run), its event stream, and the worker that executes it.

`schedule` begins runs later, `administration` is what operators do with them. Rests on `workflows` (the graphs) and on
the rooms below; HTTP does not belong here. The api process imports neither the worker nor what executes graphs: it
must stay light.
"""
