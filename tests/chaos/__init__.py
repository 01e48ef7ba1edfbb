"""Chaos: many runs, faults at random moments, and a checker over what everybody saw.

In the manner of Jepsen: real processes are hurt while clients ask and record, an outside store that no fault reaches
records what tools did, and only afterwards the checker judges the whole history. `python -m tests.chaos` runs it;
the checker (`checker.py`) knows nothing of processes, so that tests can hand it made-up histories.
"""
