"""Gets the programs that the repository's commands run: uv, the Python environment, Pulumi, the scripted model server.

Standard library only, for a machine with python3, make and git. Everything lands in a cache outside the checkout, under
its version, whole or not at all. What is downloaded is checked against a hash in `pins.py`, go.sum or a lock file; the
one exception is Pulumi's official release, see `pulumi_cli.py`.
"""
