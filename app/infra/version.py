"""The version of Slipway; pyproject.toml and CHANGELOG.md say the same (a test compares)."""

VERSION = "0.1.0"
