"""The Pulumi program: reads the stack's configuration and builds the platform that it names.

`config` is the typed configuration, `local` one platform; the next ones stand beside it and give the same `Platform`.
Logic that two platforms share belongs into `components`.
"""
