"""The base of every part of the configuration: frozen, camel-cased, no unknown key, no value in an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """One mapping of the configuration."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, hide_input_in_errors=True, validate_default=True
    )
