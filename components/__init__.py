"""Pulumi components, one file each: what a running Slipway is made of.

`traffic` is the one model of who gets which requests; the platforms render it. `local` holds the machinery of the
platform `local` (supervisor, health checks, Envoy files). Nothing here reads stack configuration: `stacks` does.
"""
