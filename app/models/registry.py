"""The registry of models: name → provider, limits, capabilities; and which model plays which role.

Light: no client library is imported, so the api process may read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.infra.errors import ConfigurationError
from app.infra.settings import ModelSettings

REGISTRY = Path(__file__).with_name("registry.yaml")

EMBEDDING = "embedding"
"""The value of FAST_CLASSIFIER_MODEL that classifies by embeddings, without a model call."""


class Provider(StrEnum):
    """Who serves a model, and so which client and which key it takes."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    COMPATIBLE = "openai-compatible"
    """Any other server that speaks OpenAI's API, at OPENAI_BASE_URL."""


class Role(StrEnum):
    """What a model is asked for."""

    ORCHESTRATOR = "orchestrator"
    """Plans, and answers simple questions."""
    REASONER = "reasoner"
    """Answers difficult questions."""
    CLASSIFIER = "classifier"
    """Says what a message is about; may be no model at all."""


class ModelEntry(BaseModel):
    """What is known of one model. The defaults are for a model that nobody has described: cautious."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    provider: Provider = Provider.COMPATIBLE
    context_tokens: int = Field(8_192, ge=512)
    output_tokens: int | None = Field(None, ge=16)
    structured: Literal["json_schema", "tools", "prompt"] = "prompt"
    plans: bool = True
    temperature: bool = True
    small: bool = False
    passages: int = Field(8, ge=1)
    passage_chars: int = Field(2_000, ge=200)
    retries: int = Field(10, ge=0)
    answer_seconds: float = Field(180.0, gt=0)
    price: Literal["listed", "free"] = "listed"


@dataclass(frozen=True, slots=True)
class ModelRegistry:
    """Models by name, and the names that the settings give to the roles."""

    entries: Mapping[str, ModelEntry]
    roles: Mapping[Role, str]
    base_url: str | None = None
    """Where OpenAI's API is looked for instead of api.openai.com."""

    @classmethod
    def load(cls, settings: ModelSettings, path: Path = REGISTRY) -> ModelRegistry:
        """Read `path`. Raises `ConfigurationError` that names the file, the model and the wrong field."""
        roles = {
            Role.ORCHESTRATOR: settings.orchestrator_model,
            Role.REASONER: settings.reasoning_model,
            Role.CLASSIFIER: settings.fast_classifier_model,
        }
        return cls(read(path), roles, settings.openai_base_url)

    def get(self, name: str) -> ModelEntry:
        """What is known of `name`. An unknown name is taken for a model behind the API that its name suggests."""
        known = self.entries.get(name)
        if known is not None:
            return known
        if name.startswith("claude"):
            return ModelEntry(name=name, provider=Provider.ANTHROPIC, context_tokens=200_000, structured="tools")
        provider = Provider.COMPATIBLE if self.base_url else Provider.OPENAI
        return ModelEntry(name=name, provider=provider)

    def role(self, role: Role) -> ModelEntry:
        """The model that plays `role`."""
        return self.get(self.roles[role])

    def in_use(self) -> list[ModelEntry]:
        """The models that some role names, each once; the classifier by embeddings is none."""
        return [self.get(name) for name in dict.fromkeys(self.roles.values()) if name != EMBEDDING]

    def check(self, settings: ModelSettings) -> None:
        """Raise `ConfigurationError`, naming the variable, when a model in use lacks its key or its server."""
        for entry in self.in_use():
            roles = " and ".join(str(role) for role, name in self.roles.items() if name == entry.name)
            if entry.provider is Provider.ANTHROPIC and settings.anthropic_api_key is None:
                raise ConfigurationError(
                    f"ANTHROPIC_API_KEY is missing: {entry.name} is the {roles}", fix="set it, or name another model"
                )
            if entry.provider is Provider.COMPATIBLE and settings.openai_base_url is None:
                raise ConfigurationError(
                    f"OPENAI_BASE_URL is missing: {entry.name} is the {roles} and is served by no known provider",
                    fix="set it to the address of the server, for example http://127.0.0.1:8001/v1",
                )
            if (
                entry.provider is Provider.OPENAI
                and settings.openai_api_key is None
                and settings.openai_base_url is None
            ):
                raise ConfigurationError(
                    f"OPENAI_API_KEY is missing: {entry.name} is the {roles}",
                    fix="set it, or set OPENAI_BASE_URL to a server that needs none, or name another model",
                )


def read(path: Path = REGISTRY) -> dict[str, ModelEntry]:
    """The entries of a registry file. Raises `ConfigurationError` with one line per wrong field."""
    try:
        content: Any = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = path.name if mark is None else f"{path.name}:{mark.line + 1}"
        raise ConfigurationError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict):
        raise ConfigurationError(f"{path.name}: there is no mapping `models:`", fix="give each model an entry under it")
    entries: dict[str, ModelEntry] = {}
    lines: list[str] = []
    for name, fields in models.items():
        try:
            entries[str(name)] = ModelEntry.model_validate({**(fields or {}), "name": str(name)})
        except (ValidationError, TypeError) as error:
            if isinstance(error, TypeError):
                lines.append(f"{path.name}: models.{name}: must be a mapping of fields")
                continue
            lines += [
                f"{path.name}: models.{name}.{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False)
            ]
    if lines:
        raise ConfigurationError("\n".join(lines))
    return entries
