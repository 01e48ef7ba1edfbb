"""`slipway`, the operator's command line: formats what `app.runs.administration.desk` says and asks before it destroys.

It talks to Redis directly, with the settings of the service, and so works while no api runs. No rule about runs or
threads belongs here.
"""
