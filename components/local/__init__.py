"""The machinery of the platform `local`: programs of one supervisor per stack, driven by Pulumi dynamic providers.

Everything lives under one folder per stack (`.slipway/<stack>/`, mode 0700). The modules here are plain functions over
that folder and can be used without Pulumi; `resources` wraps them as resources with create, read, diff, update, delete.
"""
