"""The registry of prompts: which versions there are, and filling one in.

A file `<id>.yaml`:

    id: answer
    description: What it is for.
    latest: 2
    versions:
      2:
        changelog: What changed since version 1, and why.
        variables: [question, passages]
        system: You answer …            # optional
        user: "Question: {{question}}"
        model: gpt-5-mini               # optional: wins over the role's model
        temperature: 0.2                # optional: wins over DEFAULT_TEMPERATURE
        stop: ["Question:"]             # optional: where the answer ends; for models that go on with the next question

`{{name}}` stands for a variable. What a text uses and what `variables` lists must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.infra.errors import ConfigurationError

FOLDER = Path(__file__).parent
LATEST = "latest"
_VARIABLE = re.compile(r"\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}")


class Version(BaseModel):
    """One version of a prompt, as its file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    changelog: str = Field(min_length=1)
    variables: tuple[str, ...] = ()
    system: str = ""
    user: str = Field(min_length=1)
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    stop: tuple[str, ...] = ()


class PromptFile(BaseModel):
    """A whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    description: str = Field(min_length=1)
    latest: int
    versions: dict[int, Version] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt in the version that this process uses."""

    id: str
    version: int
    content: Version

    @property
    def name(self) -> str:
        """`answer@2`: what a run records."""
        return f"{self.id}@{self.version}"

    @property
    def model(self) -> str | None:
        return self.content.model

    @property
    def temperature(self) -> float | None:
        return self.content.temperature

    def messages(self, **values: str) -> list[BaseMessage]:
        """The filled prompt as system and user message. Raises ValueError when a variable is missing or unknown.

        Values are put in as they are: a `{{…}}` inside one, which a user may have written, is not filled again.
        """
        declared = set(self.content.variables)
        if missing := sorted(declared - set(values)):
            raise ValueError(f"prompt {self.name}: missing {', '.join(missing)}")
        if unknown := sorted(set(values) - declared):
            raise ValueError(f"prompt {self.name}: has no variable {', '.join(unknown)}")

        def fill(text: str) -> str:
            return _VARIABLE.sub(lambda match: values[match[1]], text).strip()

        system, user = fill(self.content.system), fill(self.content.user)
        return [*([SystemMessage(system)] if system else []), HumanMessage(user)]


class PromptRegistry:
    """All prompts of a folder, each in one version."""

    def __init__(self, files: Mapping[str, PromptFile], version: str = LATEST) -> None:
        """Choose versions. `version` is PROMPT_VERSION: `latest`, or a number.

        A prompt that has not changed since an older version has no file entry for each later number: it is used in its
        newest version that is not above the number. Raises `ConfigurationError` for a number that no prompt has.
        """
        self._prompts = {name: _choose(file, version) for name, file in files.items()}
        if version != LATEST and not any(str(prompt.version) == version for prompt in self._prompts.values()):
            known = sorted({number for file in files.values() for number in file.versions})
            raise ConfigurationError(
                f"PROMPT_VERSION={version}: no prompt has that version",
                fix=f"use {LATEST} or one of {', '.join(map(str, known))}",
            )

    @classmethod
    def load(cls, version: str = LATEST, folder: Path = FOLDER) -> PromptRegistry:
        """Read and check every `*.yaml` of `folder`. Raises `ConfigurationError` with one line per mistake."""
        files: dict[str, PromptFile] = {}
        problems: list[str] = []
        for path in sorted(folder.glob("*.yaml")):
            try:
                file = _read(path)
            except ConfigurationError as error:
                problems.append(error.text)
            else:
                files[file.id] = file
        if problems:
            raise ConfigurationError("\n".join(problems))
        return cls(files, version)

    def get(self, name: str) -> Prompt:
        """The prompt of that id. Raises `ConfigurationError` when there is none."""
        prompt = self._prompts.get(name)
        if prompt is None:
            raise ConfigurationError(
                f"there is no prompt {name}", fix=f"use one of {', '.join(sorted(self._prompts))}, or add {name}.yaml"
            )
        return prompt


def _choose(file: PromptFile, version: str) -> Prompt:
    number = file.latest
    if version != LATEST:
        if not version.isdecimal():
            raise ConfigurationError(f"PROMPT_VERSION={version} is not a version", fix=f"use a number or {LATEST}")
        number = max((known for known in file.versions if known <= int(version)), default=min(file.versions))
    return Prompt(file.id, number, file.versions[number])


def _read(path: Path) -> PromptFile:
    text = path.read_text()
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path.name}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    try:
        file = PromptFile.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise ConfigurationError(
            "\n".join(f"{_place(path, text, problem['loc'])}: {problem['msg']}" for problem in problems)
        ) from error
    if lines := list(_mistakes(path, text, file)):
        raise ConfigurationError("\n".join(lines))
    return file


def _mistakes(path: Path, text: str, file: PromptFile) -> Iterator[str]:
    if file.id != path.stem:
        yield f"{_place(path, text, ('id',))}: must be {path.stem}, as the file is named"
    if file.latest not in file.versions:
        yield f"{_place(path, text, ('latest',))}: there is no version {file.latest}"
    for number, version in file.versions.items():
        used, declared = set(_VARIABLE.findall(version.system + version.user)), set(version.variables)
        where = _place(path, text, ("versions", number, "variables"))
        for name in sorted(used - declared):
            yield f"{where}: the text uses {{{{{name}}}}}, which is not declared"
        for name in sorted(declared - used):
            yield f"{where}: {name} is declared, but the text does not use it"


def _place(path: Path, text: str, location: tuple[int | str, ...]) -> str:
    """`answer.yaml:12: versions.2.user`, with the line of the nearest key that stands in the file."""
    node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    line = 1
    for part in location:
        if not isinstance(node, yaml.MappingNode):
            break
        pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line + 1, pair[1]
    return f"{path.name}:{line}: {'.'.join(str(part) for part in location) or 'the file'}"
