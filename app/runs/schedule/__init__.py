"""Runs that begin later: those put off by their request, and those of crons.

`scheduler` moves on what has come due, in every api process; `later` and `crons` say what that means for each kind.
"""
