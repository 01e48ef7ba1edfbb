"""The prompts, one YAML file each with all its versions, and the registry that checks and fills them.

A released version is never edited: a change is a new version with its line of changelog, so that a release can be
told to answer with the old one (PROMPT_VERSION).
"""
