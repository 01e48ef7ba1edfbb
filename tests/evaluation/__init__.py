"""The evaluation: labelled questions, put to a running service over HTTP, graded, reported, held against thresholds.

`datasets/` has the cases, `thresholds.yaml` what must be reached. Nothing here imports `app`: what is judged is what
a client sees. Run it with `python -m tests.evaluation --url URL`.
"""
