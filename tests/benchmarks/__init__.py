"""Measures what the platform costs, beside what it is built on, in one run; `make bench` writes docs/benchmarks.md.

`load` is the client, `servers` starts what is measured, each `bench_*` module gives rows for one table. Numbers
depend on the machine: compare columns of one run, not runs of two days.
"""
