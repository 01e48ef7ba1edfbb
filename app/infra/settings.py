"""The service's settings: one tree, read only from the environment (and from `.env` in development).

Each group is frozen, names its unit in the field and writes its default once. A wrong value stops the start
with one line that names the variable, what is wrong and an example: see `load`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infra.encryption import aes_keys
from app.infra.errors import ConfigurationError
from app.infra.ids import ID_PATTERN, STABLE, Release

REPOSITORY = Path(__file__).resolve().parents[2]
"""Where the code lies: the repository in development, /srv/slipway in the image."""


class Group(BaseSettings):
    """A group of settings; the variable is the field's name in capitals, after the group's prefix."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, env_file_encoding="utf-8", hide_input_in_errors=True
    )


class ServiceSettings(Group):
    """What this process is and where it listens."""

    environment: Literal["development", "production"] = Field(
        "development", description="`production` reads no `.env` file and logs JSON even on a terminal."
    )
    release: Annotated[str, Field(pattern=ID_PATTERN)] = Field(
        STABLE, description="Name of the release that this process serves; its workers take this release's runs only."
    )
    host: str = Field("127.0.0.1", description="Address that the api listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port that the api listens on.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    langgraph_config: Path = Field(
        REPOSITORY / "langgraph.json", description="File that registers the graphs, in LangGraph's own format."
    )
    default_graph: str = Field("agent", description="Graph that answers when a request names none.")
    max_body_bytes: int = Field(262_144, ge=1_024, description="Largest request body; a larger one is refused (413).")
    max_message_chars: int = Field(20_000, ge=1, description="Longest message; a longer one is refused (422).")
    chat_timeout_seconds: float = Field(
        120, gt=0, description="Longest that `/chat` waits for its run; then 202 names the run, which goes on."
    )
    drain_seconds: float = Field(
        20, gt=0, description="Longest that a stopping process lets a step or a stream go on after SIGTERM."
    )
    heartbeat_seconds: float = Field(10, gt=0, description="Pause after which a silent stream gets a comment line.")


class RedisSettings(Group):
    """Redis or Valkey: queue, threads, checkpoints, events."""

    model_config = SettingsConfigDict(env_prefix="REDIS_")

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Where Redis or Valkey is, with user and password.",
        examples=["redis://:password@127.0.0.1:6379/0"],
    )
    max_connections: int = Field(64, ge=4, description="Connections per process; more callers wait their turn.")
    timeout_seconds: float = Field(2.0, gt=0, description="Longest wait for an answer before it counts as an outage.")
    key_prefix: str = Field(
        "", pattern=r"^[a-z0-9:_-]*$", description="Put before every key; a shadow release has one."
    )

    @field_validator("url")
    @classmethod
    def _is_a_redis_url(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        from redis.connection import parse_url

        try:
            parse_url(value.get_secret_value())  # type: ignore[no-untyped-call]
        except ValueError:  # its text quotes the URL, and of a password with a slash a part
            raise ValueError("cannot be read; write special characters of its password as %2F and the like") from None
        return value


class RunSettings(Group):
    """How runs are executed."""

    worker_slots: int = Field(5, ge=1, le=500, description="Runs that one worker executes at a time.")
    lease_seconds: float = Field(5.0, ge=1, description="Silence after which a worker's run is taken over by another.")
    run_timeout_seconds: float = Field(600, gt=0, description="Longest that one attempt of a run may take.")
    step_timeout_seconds: float = Field(
        300, gt=0, description="Longest that one step of a graph may take; then the attempt fails and is retried."
    )
    run_max_attempts: int = Field(3, ge=1, description="Attempts before a run fails for good.")
    run_retention_seconds: int = Field(86_400 * 7, ge=60, description="How long an ended run can be read.")
    event_retention_seconds: int = Field(86_400, ge=60, description="How long an ended run's events can be read.")
    event_max_entries: int = Field(20_000, ge=100, description="Events kept per run; older ones are trimmed.")
    thread_retention_seconds: int = Field(86_400 * 30, ge=60, description="How long an untouched thread is kept.")
    idempotency_seconds: int = Field(86_400, ge=60, description="How long an Idempotency-Key is remembered.")
    durability: Literal["sync", "async"] = Field(
        "async", description="`sync` waits for each checkpoint before the next step; `async` writes it meanwhile."
    )
    checkpoint_encryption_key: SecretStr | None = Field(
        None,
        description="Encrypts checkpoints at rest: 16, 24 or 32 random bytes as base64 or hex. Of a comma-separated "
        "list the first key writes and each reads.",
        examples=["$(openssl rand -base64 32)"],
    )
    max_iterations: int = Field(50, ge=1, description="Steps of the graph per run; then it ends with what it has.")
    max_tokens_per_task: int = Field(
        100_000, ge=1, description="Tokens for one run, over all its calls; checked, not yet enforced."
    )

    @field_validator("checkpoint_encryption_key")
    @classmethod
    def _is_a_list_of_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            aes_keys(value.get_secret_value())
        return value


class ModelSettings(Group):
    """Which models answer, and with which keys."""

    openai_api_key: SecretStr | None = Field(None, description="Key for OpenAI or any compatible server.")
    openai_base_url: str | None = Field(
        None,
        description="OpenAI-compatible server to use instead of api.openai.com.",
        examples=["http://127.0.0.1:8001/v1"],
    )
    anthropic_api_key: SecretStr | None = Field(None, description="Key for Anthropic's models.")
    orchestrator_model: str = Field("gpt-5-mini", description="Model that plans, and answers simple questions.")
    fast_classifier_model: str = Field(
        "embedding", description="Model that classifies; `embedding` compares with labelled examples, without a call."
    )
    reasoning_model: str = Field("gpt-5", description="Model that answers difficult questions.")
    answer_judge_model: str | None = Field(
        None,
        description="Model that gives a second opinion on whether an answer rests on the results; none by default.",
    )
    embedding_model: str = Field(
        "minilm", description="`minilm` runs in the process; another name is asked of the OpenAI-compatible server."
    )
    default_temperature: float = Field(0.0, ge=0, le=2, description="Temperature where a prompt names none.")
    model_timeout_seconds: float = Field(60, gt=0, description="Longest that one model call may take.")
    model_max_output_tokens: int = Field(1_024, ge=16, description="Longest answer of one call.")


class ToolSettings(Group):
    """What the built-in tools may reach."""

    documents_path: Path = Field(REPOSITORY / "docs", description="Folder whose Markdown and text the search reads.")
    database_url: SecretStr | None = Field(
        None,
        description="Database for read-only SQL; without one, the bundled sample (SQLite).",
        examples=["postgresql://reader:password@db:5432/shop", "sqlite:////data/shop.db"],
    )
    database_timeout_seconds: float = Field(5, gt=0, description="Longest that one query may run.")
    database_max_rows: int = Field(100, ge=1, le=10_000, description="Rows that one query returns at most.")
    http_allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts that the API client may call, as a JSON list: `host` must have public addresses only, "
        "`host:port` may lie inside the own network.",
        examples=['["api.example.com"]', '["intranet:8080"]'],
    )
    http_timeout_seconds: float = Field(
        10, gt=0, description="Longest that one HTTP call may take, redirects included."
    )
    http_max_bytes: int = Field(262_144, ge=1_024, description="Largest response that the API client reads.")
    tool_concurrency: int = Field(4, ge=1, le=64, description="Independent tool calls of one plan that run at a time.")
    max_answer_retries: int = Field(2, ge=0, le=10, description="Times that an ungrounded answer is tried again.")
    qdrant_url: str | None = Field(
        None,
        description="Qdrant for documents and memory; without one, neither finds by meaning.",
        examples=["http://127.0.0.1:6333"],
    )
    qdrant_api_key: SecretStr | None = Field(None, description="Key of that Qdrant.")
    prompt_version: str = Field("latest", description="Version of the prompts, or `latest`.", examples=["2", "latest"])


class LimitSettings(Group):
    """Limits per caller: read and checked, not yet enforced."""

    rate_limit_calls: int = Field(100, ge=1, description="Calls per window and caller.")
    rate_limit_window_seconds: int = Field(60, ge=1, description="Length of that window.")


class TelemetrySettings(Group):
    """Where traces and metrics go. The exporters read the other standard OTEL_* variables from the environment."""

    otel_exporter_otlp_endpoint: str | None = Field(
        None, description="OTLP collector; without one nothing is exported.", examples=["http://127.0.0.1:4318"]
    )
    otel_service_name: str = Field("slipway", description="Service name in traces and metrics.")
    langsmith_tracing: bool = Field(False, description="Send runs to LangSmith (with LANGSMITH_API_KEY).")
    langsmith_api_key: SecretStr | None = Field(None, description="Key of LangSmith.")
    langsmith_project: str = Field("slipway", description="Project in LangSmith.")
    langsmith_endpoint: str | None = Field(None, description="LangSmith server other than the hosted one.")


class Settings(BaseModel):
    """The whole tree."""

    model_config = {"frozen": True}

    service: ServiceSettings
    redis: RedisSettings
    runs: RunSettings
    models: ModelSettings
    tools: ToolSettings
    limits: LimitSettings
    telemetry: TelemetrySettings

    @property
    def release(self) -> Release:
        return Release(self.service.release)

    @model_validator(mode="after")
    def _times_fit_together(self) -> Self:
        if self.runs.lease_seconds >= self.runs.run_timeout_seconds:
            raise ValueError(
                f"LEASE_SECONDS={self.runs.lease_seconds:g} must be below RUN_TIMEOUT_SECONDS="
                f"{self.runs.run_timeout_seconds:g}; try 5 and 600"
            )
        if self.runs.idempotency_seconds > self.runs.run_retention_seconds:
            raise ValueError(
                f"IDEMPOTENCY_SECONDS={self.runs.idempotency_seconds} must not exceed RUN_RETENTION_SECONDS="
                f"{self.runs.run_retention_seconds}: a repeated key must find its run; try 86400 and 604800"
            )
        return self


GROUPS: dict[str, type[Group]] = {
    "service": ServiceSettings,
    "redis": RedisSettings,
    "runs": RunSettings,
    "models": ModelSettings,
    "tools": ToolSettings,
    "limits": LimitSettings,
    "telemetry": TelemetrySettings,
}
"""The groups by their field in `Settings`."""


def variable(group: type[Group], name: str) -> str:
    """The environment variable of a field."""
    return f"{group.model_config.get('env_prefix', '')}{name}".upper()


def load(env_file: Path | None = REPOSITORY / ".env") -> Settings:
    """Read all settings. Raises `ConfigurationError` with one line per wrong variable, never its value.

    `env_file` is read where it exists and ENVIRONMENT is not `production`; the environment wins over it. Last come
    files named like the variables (`redis_url`), in the folder SECRETS_PATH or else /run/secrets: what is mounted
    there stands in no process's environment.
    """
    import os

    secrets = _secrets_folder(os.environ.get("SECRETS_PATH", ""))

    if os.environ.get("ENVIRONMENT") == "production" or env_file is None or not env_file.exists():
        env_file = None
    groups: dict[str, Group] = {}
    lines: list[str] = []
    for name, group in GROUPS.items():
        try:
            groups[name] = group(_env_file=env_file, _secrets_dir=secrets)
        except ValidationError as error:
            lines += [_explain(group, problem["loc"], problem["msg"]) for problem in error.errors()]
        except OSError as error:
            fix = "let the user of this process read it, or set the variable of that name"
            raise ConfigurationError(f"{error.filename}: {error.strerror}", fix=fix) from error
    if not lines:
        try:
            return Settings.model_validate(groups)
        except ValidationError as error:
            lines = [problem["msg"].removeprefix("Value error, ") for problem in error.errors()]
    raise ConfigurationError("\n".join(lines))


def _secrets_folder(named: str) -> Path | None:
    import os

    folder = Path(named or "/run/secrets")
    if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
        return folder
    if named:
        raise ConfigurationError(f"SECRETS_PATH={named} is no folder that can be read", fix="mount it, or unset it")
    return None


def _explain(group: type[Group], location: tuple[int | str, ...], message: str) -> str:
    name = str(location[0]) if location else ""
    field = group.model_fields.get(name)
    if field is None:
        return message.removeprefix("Value error, ")
    problem = message.removeprefix("Value error, ")
    return f"{variable(group, name)}: {problem}; example: {variable(group, name)}={example(field)}"


def example(field: FieldInfo) -> str:
    """A value that the field accepts: its first example, else its first choice, else its default."""
    if field.examples:
        return str(field.examples[0])
    choices = get_args(field.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return str(choices[0])
    return str(field.default)


@cache
def settings() -> Settings:
    """The process's settings, read once."""
    return load()
