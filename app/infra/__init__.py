"""What every room stands on: settings, errors, Redis access, the fence, logging, telemetry, keys of callers.

Nothing here knows of graphs, models or HTTP routes. What lower rooms need of a run (its identity, its fence,
the effect journal's interface) is declared here and implemented in `app.runs`.
"""
