"""The stack's configuration, typed: what may stand under `slipway:` in `Pulumi.<stack>.yaml`.

Whatever is wrong (an unknown key, weights that do not sum to 100, a variable that the service does not know) fails
`pulumi preview` with the key, the problem and the mend, before anything is touched. Values of secrets are never shown.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import pulumi
from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from app.infra.ids import ID_PATTERN, is_id
from components.traffic import PIN_HEADER, HeaderPin, ReleaseTraffic, Role, TrafficPlan
from stacks import kubernetes_rules
from stacks.kubernetes_config import Build, ImageReference, KubernetesConfig
from stacks.model import Model
from stacks.variables import check_override, check_secret

NAMESPACE = "slipway"
REPOSITORY = Path(__file__).resolve().parents[1]


class ConfigError(Exception):
    """The configuration is wrong; one line per mistake."""


class PlatformName(StrEnum):
    """Where a stack runs. A member is added with the platform that implements it."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


def _override(env: dict[str, Any]) -> dict[str, str]:
    return {name: check_override(name, value) for name, value in env.items()}


def _secrets(env: dict[str, Any]) -> dict[str, SecretStr]:
    return {name: SecretStr(check_secret(name, value)) for name, value in env.items()}


Overrides = Annotated[dict[str, Any], AfterValidator(_override)]


class Pin(Model):
    """Which header sends a request to the release, whatever the weights say."""

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] = PIN_HEADER
    value: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Default: the release's name."""


class Workers(Model):
    """Workers of a release. One number in the configuration means both: then nothing scales."""

    min: int = Field(1, ge=0, le=1_000)
    max: int = Field(1, ge=1, le=1_000)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; swap them, or give one number for both")
        return self


def _one_number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise ValueError("is no number; give one number, or {min: 1, max: 10}") from None
    if isinstance(value, int) and not isinstance(value, bool):
        return {"min": value, "max": max(value, 1)}
    return value


WorkerCount = Annotated[Workers, BeforeValidator(_one_number)]


class ReleaseConfig(Model):
    """One release: a variant of the service that runs beside the others."""

    weight: int = Field(0, ge=0, le=100)
    """Percent of the requests that no pin decides."""
    pin: Pin | None = None
    """`{}` pins by `x-slipway-release: <name>`; without, only the weights lead here."""
    mirror_percent: float = Field(0, ge=0, le=100)
    """Above 0 the release is a shadow: it gets copies of this share and answers nobody."""
    env: Overrides = Field(default_factory=dict)
    """Settings of this release alone, by variable."""
    workers: WorkerCount | None = None
    """Default: the stack's."""
    image: ImageReference | None = None
    """Image of this release alone (Kubernetes). Default: the stack's."""
    state: Literal["serving", "draining"] = "serving"
    """`draining`: takes no request, its workers finish its runs. Remove it once they have."""

    @property
    def role(self) -> Role:
        if self.mirror_percent:
            return Role.SHADOW
        return Role(self.state)

    @model_validator(mode="after")
    def _one_role(self) -> Self:
        if self.mirror_percent and self.state == "draining":
            raise ValueError("a draining release gets no copies; take mirrorPercent or state out")
        return self


class StackConfig(Model):
    """Everything under `slipway:`."""

    platform: PlatformName = PlatformName.LOCAL
    environment: Literal["development", "production"] = "development"
    """`production` reads no `.env` and logs JSON."""
    releases: dict[str, ReleaseConfig] = Field(
        default_factory=lambda: {"stable": ReleaseConfig(weight=100)}, min_length=1
    )
    env: Overrides = Field(default_factory=dict)
    """Settings of all releases, by variable."""
    secret_env: Annotated[dict[str, Any], AfterValidator(_secrets)] = Field(default_factory=dict)
    """Secret settings of all releases, by variable."""
    workers: WorkerCount | None = None
    """Workers of each release. Default: 1 on the local platform; on Kubernetes 2 to 50, as the queue asks."""
    openai_api_key: SecretStr | None = None
    openai_base_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    anthropic_api_key: SecretStr | None = None
    redis_url: SecretStr | None = None
    """A Redis or Valkey to use instead of an own one."""
    qdrant_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """A Qdrant to use instead of an own vector store."""
    qdrant_api_key: SecretStr | None = None
    appendfsync: Literal["everysec", "always"] = "everysec"
    """How often the own Redis writes to disk: what a crash can cost, and what a write costs."""
    keep_data: bool = False
    """Whether `pulumi destroy` leaves the data."""
    public_address: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$")] = "127.0.0.1"
    """Where the front door listens (local): host or host:port; without a port, a free one is chosen and kept."""
    image: ImageReference | None = None
    """The service's image (Kubernetes), by digest."""
    build: Build | None = None
    """Build the image of this repository, and push it (Kubernetes), instead of `image`."""
    kubernetes: KubernetesConfig | None = None
    """What only the platform `kubernetes` needs to know."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in self.releases:
            if not is_id(name):
                raise ValueError(f"releases: {name!r} is no name of a release; it must match {ID_PATTERN}")
        self.traffic()
        if self.redis_url and not self.redis_url.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("redisUrl: must begin with redis:// or rediss://, like redis://:password@host:6379/0")
        if self.host_port[1] is not None and not 1 <= self.host_port[1] <= 65_535:
            raise ValueError("publicAddress: the port must be between 1 and 65535, like 127.0.0.1:8080")
        if self.platform is PlatformName.LOCAL:
            self._runs_locally()
        else:
            kubernetes_rules.check(self)
        return self

    def _runs_locally(self) -> None:
        for name, release in self.releases.items():
            workers = self.workers_of(name)
            if workers.min != workers.max or workers.min < 1:
                raise ValueError(
                    f"releases.{name}.workers: the platform local does not scale; give one number, 1 or more"
                )
            if workers.max > _MOST_LOCAL_WORKERS:
                raise ValueError(f"releases.{name}.workers: one machine runs at most {_MOST_LOCAL_WORKERS}")
            if release.image:
                raise ValueError(f"releases.{name}.image: the platform local runs this checkout; take it out")
        for key in ("image", "build"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key}: the platform local runs this checkout; take it out")

    def traffic(self) -> TrafficPlan:
        """Who gets which requests."""
        try:
            return TrafficPlan(
                tuple(
                    ReleaseTraffic(
                        name=name,
                        role=release.role,
                        weight=release.weight,
                        pin=HeaderPin(release.pin.header, release.pin.value or name) if release.pin else None,
                        mirror_percent=release.mirror_percent,
                    )
                    for name, release in self.releases.items()
                )
            )
        except ValueError as error:
            raise ValueError(f"releases: {error}") from None

    def workers_of(self, release: str) -> Workers:
        """How many workers it has, or may have."""
        default = Workers() if self.platform is PlatformName.LOCAL else _SCALED
        return self.releases[release].workers or self.workers or default

    @property
    def host_port(self) -> tuple[str, int | None]:
        """Of `publicAddress`; None: a port is to be chosen."""
        host, _, port = self.public_address.partition(":")
        return host, int(port) if port else None

    @property
    def has_a_model(self) -> bool:
        """Whether any model endpoint is configured; without one the platform brings its own."""
        return bool(self.openai_api_key or self.anthropic_api_key or self.openai_base_url)


_MOST_LOCAL_WORKERS = 64
_SCALED = Workers(min=2, max=50)

FROM_THE_ENVIRONMENT = {
    "openaiApiKey": "OPENAI_API_KEY",
    "openaiBaseUrl": "OPENAI_BASE_URL",
    "anthropicApiKey": "ANTHROPIC_API_KEY",
}
"""What is taken from the environment, then from `.env`, when the configuration does not say it."""


def read() -> StackConfig:
    """The configuration of the stack that Pulumi runs. Raises `ConfigError`."""
    from pulumi.runtime.config import CONFIG, get_config_env

    prefix = f"{NAMESPACE}:"
    stored = {**get_config_env(), **CONFIG.get()}
    raw = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    secret = {key for key in raw if pulumi.runtime.is_config_secret(prefix + key)}
    environment = {**dotenv_values(REPOSITORY / ".env"), **{key: value for key, value in os.environ.items() if value}}
    return parse(raw, secret=secret, environment=environment)


def parse(raw: Mapping[str, str], *, secret: set[str], environment: Mapping[str, str | None]) -> StackConfig:
    """The configuration of `raw`, Pulumi's key → text (JSON for what is not text). Raises `ConfigError`.

    `secret` are the keys that are stored encrypted; `environment` is what FROM_THE_ENVIRONMENT is looked up in.
    """
    values: dict[str, Any] = {key: _value(text) for key, text in raw.items()}
    problems = [
        f"{NAMESPACE}:{key}: is a secret and stands in clear; enter it again with `pulumi config set --secret "
        f"{NAMESPACE}:{key}`"
        for key in ("openaiApiKey", "anthropicApiKey", "redisUrl", "qdrantApiKey", "secretEnv")
        if values.get(key) and key not in secret
    ]
    elsewhere = _kept_elsewhere(values)
    for key, variable in FROM_THE_ENVIRONMENT.items():
        if key not in values and variable not in elsewhere and environment.get(variable):
            values[key] = environment[variable]
    try:
        stack = StackConfig.model_validate(values)
    except ValidationError as error:
        problems += [_explain(tuple(item["loc"]), item["type"], item["msg"]) for item in error.errors()]
    if problems:
        raise ConfigError("\n".join(["the stack's configuration is wrong:", *(f"  {line}" for line in problems)]))
    return stack


def _kept_elsewhere(values: Mapping[str, Any]) -> set[str]:
    """Variables that the environment must not fill in: a store keeps them, or the stack has a model of its own."""
    kubernetes = values.get("kubernetes")
    if values.get("platform") != PlatformName.KUBERNETES or not isinstance(kubernetes, dict):
        return set()
    store = kubernetes.get("secretStore")
    stored = store.get("secrets") if isinstance(store, dict) else None
    found = {*stored} if isinstance(stored, dict) else set()
    if "OPENAI_API_KEY" in found or kubernetes.get("modelServer") is not None:
        found |= {"OPENAI_API_KEY", "OPENAI_BASE_URL"}
    return found


def _value(text: Any) -> Any:
    if isinstance(text, str) and text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _explain(location: tuple[int | str, ...], kind: str, message: str) -> str:
    key = f"{NAMESPACE}:{'.'.join(str(part) for part in location)}" if location else f"{NAMESPACE}:"
    # Our own messages begin with a name that must stay as it is written.
    message = message.removeprefix("Value error, ") if kind == "value_error" else message[:1].lower() + message[1:]
    if kind == "extra_forbidden":
        known = _known(location)
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}"
        return f"{key}: is no key of the configuration; {hint}"
    if location == ("platform",):
        there = ", ".join(PlatformName)
        return f"{key}: there is no such platform; this version has: {there}"
    return f"{key}{': ' if location else ''}{message}"


def _known(location: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand where an unknown one stood."""
    at: Any = StackConfig
    for part in location[:-1]:
        at = _inside(at, part)
    return next([to_camel(name) for name in kind.model_fields] for kind in _kinds(at) if _is_model(kind))


def _inside(annotation: Any, part: int | str) -> Any:
    """The type of what stands under `part`."""
    for kind in _kinds(annotation):
        if _is_model(kind):
            return next(field.annotation for name, field in kind.model_fields.items() if to_camel(name) == part)
        if get_origin(kind) in (dict, tuple):
            return get_args(kind)[1 if get_origin(kind) is dict else 0]
    return annotation


def _kinds(annotation: Any) -> list[Any]:
    """The types that a type is made of: without metadata, and each of a union."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Model)
