"""What a stack may set of the service's variables: those of the settings classes, with values that they accept."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, get_args, get_origin

from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from app.infra.settings import GROUPS, example, variable

OWNED = {
    "RELEASE": "it is the release's name",
    "HOST": "the platform chooses it",
    "PORT": "the platform chooses it",
    "REDIS_KEY_PREFIX": "the platform sets it for a shadow release",
    "ENVIRONMENT": "use slipway:environment",
    "REDIS_URL": "use slipway:redisUrl",
    "QDRANT_URL": "use slipway:qdrantUrl",
    "QDRANT_API_KEY": "use slipway:qdrantApiKey",
    "OPENAI_API_KEY": "use slipway:openaiApiKey",
    "OPENAI_BASE_URL": "use slipway:openaiBaseUrl",
    "ANTHROPIC_API_KEY": "use slipway:anthropicApiKey",
}
"""Variables that the platform sets, and what to do instead."""

FIELDS: dict[str, FieldInfo] = {
    variable(group, name): field for group in GROUPS.values() for name, field in group.model_fields.items()
}


def check_override(name: str, value: Any) -> str:
    """The text of a variable's value. Raises ValueError, naming the mend, for what the service would not accept."""
    field = _field(name)
    if _is_secret(field):
        raise ValueError(
            f"{name} is a secret; run `pulumi config set --secret --path slipway:secretEnv.{name}` and take it out here"
        )
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float):
        raise ValueError(f"{name} is a number with a point, which may have lost digits; put it in quotes")
    if not isinstance(value, (str, int)):
        raise ValueError(f"{name} must be text or a number; put it in quotes")
    _accepts(name, field, str(value))
    return str(value)


def check_secret(name: str, value: Any) -> str:
    """Like `check_override`, for a secret variable; the value is in no message."""
    field = _field(name)
    if not _is_secret(field):
        raise ValueError(f"{name} is no secret; put it under slipway:env")
    return str(value)


def check_stored(name: str) -> None:
    """Raises ValueError for a variable that is no secret, so that no store need keep it."""
    if name in FIELDS and _is_secret(FIELDS[name]):
        return
    if name in FIELDS:
        raise ValueError(f"kubernetes.secretStore.secrets: {name} is no secret; put it under slipway:env")
    secret = [known for known, field in FIELDS.items() if _is_secret(field)]
    close = difflib.get_close_matches(name, secret, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the secrets are {', '.join(sorted(secret))}"
    raise ValueError(f"kubernetes.secretStore.secrets: the service has no setting {name}; {hint}")


def _field(name: str) -> FieldInfo:
    if name in OWNED:
        raise ValueError(f"{name} cannot be set here; {OWNED[name]}")
    if name not in FIELDS:
        close = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f"did you mean {close[0]}?" if close else "the service's settings are listed in app/infra/settings.py"
        raise ValueError(f"the service has no setting {name}; {hint}")
    return FIELDS[name]


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def _accepts(name: str, field: FieldInfo, text: str) -> None:
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        if get_origin(field.annotation) in (tuple, list, dict):
            adapter.validate_json(text)
        else:
            adapter.validate_python(text)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise ValueError(f"{name}: {problem[:1].lower()}{problem[1:]}; example: {name}={example(field)}") from None
