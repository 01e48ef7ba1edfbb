"""Pulumi components for Kubernetes, one file each; each can be used alone by another Pulumi program.

`pod`, `labels` and `network` hold what they share: the hardened pod, the labels, the policies. Nothing here reads
stack configuration or builds a provider: `stacks.kubernetes` puts the parts together. What a component does not offer
is changed by Pulumi's own `ResourceOptions(transforms=[...])`, which reach every object that it makes.
"""
