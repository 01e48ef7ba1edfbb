"""What operators do with runs and threads: look at them, cancel, replay, drop and delete them.

`desk` is what the command line and the `/admin` routes use; the others are its parts. All of it rests on the ledger.
"""
