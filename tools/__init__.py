"""What a machine needs before `make` can do its work, and how Pulumi is driven.

`bootstrap.py` and `provision/` run on a bare Python without packages; `stack.py` runs inside the environment they made.
Nothing here is part of the service or of its infrastructure.
"""
