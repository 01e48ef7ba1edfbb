"""How Pulumi is driven: the clone stays clean, secrets stay out of logs, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import stack as driver
from tools.provision.console import Failure
from tools.stack import Stack, split

OUTPUTS: dict[str, Any] = {
    "serviceUrl": "http://127.0.0.1:9",
    "docsUrl": "http://127.0.0.1:9/docs",
    "apiKey": "the-key",
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two stacks, and a user who has set nothing."""
    for name in list(os.environ):
        if name.startswith("PULUMI_"):
            monkeypatch.delenv(name)
    (tmp_path / "Pulumi.yaml").write_text("name: slipway\nruntime: python\nmain: stacks\n")
    for name in ("dev", "prod"):
        (tmp_path / f"Pulumi.{name}.yaml").write_text("# why\nconfig:\n  slipway:workers: 1\n")
    return tmp_path


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `pulumi` that writes down its words and answers from files named after them; gives the folder of those."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "pulumi"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib, sys\n"
        "here = pathlib.Path(__file__).parent\n"
        "with (here / 'calls').open('a') as calls: calls.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "answer = here / '-'.join(w for w in sys.argv[1:4] if not w.startswith('-'))\n"
        "print(answer.read_text() if answer.exists() else '[]')\n"
        "sys.exit(7 if (here / 'fail').exists() else 0)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def calls(pulumi: Path) -> list[list[str]]:
    return [json.loads(line) for line in (pulumi / "calls").read_text().splitlines()]


@pytest.mark.parametrize("name", ["staging", "../dev", "", "pulumi", "passphrase", "a b"])
def test_a_stack_without_a_file_is_refused_and_the_known_ones_are_named(name: str, repository: Path) -> None:
    """A mistyped STACK must not make a new, empty stack; and some names are folders of ours."""
    (repository / "Pulumi.pulumi.yaml").touch()
    with pytest.raises(Failure, match="there is no stack") as raised:
        Stack(name, repository)
    assert "STACK=dev" in raised.value.fix
    assert "STACK=prod" in raised.value.fix


def test_the_passphrase_is_random_private_and_stays(repository: Path) -> None:
    """With another one next time, the secrets in the state could not be read again."""
    first = Path(Stack("dev", repository).environment()["PULUMI_CONFIG_PASSPHRASE_FILE"])
    text = first.read_text()
    second = Path(Stack("dev", repository).environment()["PULUMI_CONFIG_PASSPHRASE_FILE"])
    assert (first, text) == (second, second.read_text())
    assert len(text.strip()) >= 32
    assert stat.S_IMODE(first.stat().st_mode) == 0o600


def test_the_users_own_settings_win(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teams keep their state in a bucket, with a passphrase that all of them have; an empty one is one, too."""
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    environment = Stack("dev", repository).environment()
    assert environment["PULUMI_BACKEND_URL"] == "s3://bucket"
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in environment
    assert not (repository / ".slipway").exists()


def test_a_path_with_odd_characters_is_a_backend_too(repository: Path) -> None:
    """Pulumi reads the address as a URL: a bare `%` or space in the checkout's path would name another folder."""
    odd = repository / "a b%20c"
    odd.mkdir()
    (odd / "Pulumi.dev.yaml").touch()
    assert Stack("dev", odd).environment()["PULUMI_BACKEND_URL"].endswith("/a%20b%2520c/.slipway/pulumi")


def test_pulumi_writes_into_a_fresh_copy_of_the_committed_file(repository: Path) -> None:
    """The salt that Pulumi adds would leave every clone changed; and a copy that ages would hide edits."""
    stack = Stack("dev", repository)
    copy = stack.config_file()
    assert copy != stack.committed
    with copy.open("a") as file:
        file.write("encryptionsalt: v1:abc\n")
    stack.committed.write_text("# why\nconfig:\n  slipway:workers: 2\n")
    assert stack.config_file().read_text() == stack.committed.read_text()


@pytest.mark.parametrize("line", ["encryptionsalt: v1:abc", "secretsprovider: awskms://alias/slipway"])
def test_a_file_that_says_how_secrets_are_encrypted_is_used_itself(line: str, repository: Path) -> None:
    """The team has committed encrypted values: they are readable with that salt alone."""
    stack = Stack("prod", repository)
    with stack.committed.open("a") as file:
        file.write(line + "\n")
    assert stack.config_file() == stack.committed


def test_up_creates_the_stack_beside_the_copy_and_never_touches_the_committed_file(
    repository: Path, pulumi: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`stack init` writes its salt into the folder that it runs in."""
    (pulumi / "stack-output").write_text(json.dumps(OUTPUTS))
    before = (repository / "Pulumi.dev.yaml").read_text()
    driver.up(Stack("dev", repository))
    listing, init, operation, *_ = calls(pulumi)
    folder = repository / ".slipway" / "pulumi" / "dev"
    assert listing[:3] == ["stack", "ls", "--json"]
    assert init[:5] == ["-C", str(folder), "stack", "init", "dev"]
    assert yaml.safe_load((folder / "Pulumi.yaml").read_text())["name"] == "slipway"
    assert operation[:5] == ["up", "--stack", "dev", "--config-file", str(folder / "Pulumi.dev.yaml")]
    assert "--yes" in operation
    assert (repository / "Pulumi.dev.yaml").read_text() == before
    assert "no changes" in capsys.readouterr().out


def test_an_existing_stack_is_not_created_again(repository: Path, pulumi: Path) -> None:
    """Backends call it `dev` or `organization/slipway/dev`."""
    (pulumi / "stack-ls").write_text(json.dumps([{"name": "organization/slipway/dev"}]))
    Stack("dev", repository).create()
    assert [call[:2] for call in calls(pulumi)] == [["stack", "ls"]]


def test_no_secret_is_an_argument(repository: Path, pulumi: Path) -> None:
    """Arguments can be read by every user of the machine."""
    (pulumi / "stack-output").write_text(json.dumps(OUTPUTS))
    stack = Stack("dev", repository)
    driver.up(stack)
    passphrase = (repository / ".slipway" / "passphrase").read_text().strip()
    for call in calls(pulumi):
        assert passphrase not in " ".join(call)
        assert "the-key" not in " ".join(call)


def test_a_failed_up_says_what_to_do(repository: Path, pulumi: Path) -> None:
    """And it must be a failure: `make up && deploy` relies on it."""
    (pulumi / "fail").touch()
    with pytest.raises(Failure, match="failed") as raised:
        driver.up(Stack("dev", repository))
    assert raised.value.fix


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("error: incorrect passphrase, please set PULUMI_CONFIG_PASSPHRASE", "another passphrase"),
        ("error: no stack named 'dev' found", "make up STACK=dev"),
        ("error: the stack is currently locked by 1 lock(s).", "cancel"),
    ],
)
def test_pulumis_usual_complaints_have_an_answer(words: str, part: str) -> None:
    """These three are what people meet; Pulumi's own text names the problem, seldom the command."""
    assert part in driver.advice(words, "dev")


def test_the_key_is_shown_to_a_person_and_never_in_a_log() -> None:
    """CI keeps what is printed, for everybody who may read the run."""
    shown = driver.summary("dev", OUTPUTS, {"same": 9}, show_key=True)
    logged = driver.summary("dev", OUTPUTS, {"same": 9}, show_key=False)
    assert "the-key" in shown
    assert "the-key" not in logged
    assert "make -s outputs STACK=dev SHOW_SECRETS=1" in logged


def test_the_line_to_paste_is_a_whole_command() -> None:
    """A newcomer's first contact: quotes that the shell reads otherwise would be the last."""
    text = driver.summary("dev", OUTPUTS, {"create": 3, "same": 1}, show_key=True)
    (line,) = [line for line in text.splitlines() if line.strip().startswith("curl")]
    words = shlex.split(line)
    assert words[:3] == ["curl", "-s", "http://127.0.0.1:9/chat"]
    assert "Authorization: Bearer the-key" in words
    assert json.loads(words[-1]) == {"message": driver.QUESTION}
    assert "3 created" in text


def test_the_command_that_reads_the_key_works() -> None:
    """It stands in logs as the way to the key."""
    text = driver.summary("dev", OUTPUTS, {}, show_key=False)
    (line,) = [line for line in text.splitlines() if line.strip().startswith("KEY=")]
    reader = line.partition("| ")[2].removesuffix(")")
    done = subprocess.run(reader, shell=True, input=json.dumps(OUTPUTS), capture_output=True, text=True, check=True)
    assert done.stdout == "the-key\n"


def test_outputs_are_one_json_object(repository: Path, pulumi: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make -s outputs | jq` is how scripts find the service."""
    (pulumi / "stack-output").write_text(json.dumps(OUTPUTS))
    driver.show_outputs(Stack("dev", repository), show_secrets=False)
    assert json.loads(capsys.readouterr().out) == OUTPUTS
    assert "--show-secrets" not in calls(pulumi)[-1]


def test_a_stack_without_outputs_is_a_failure(repository: Path, pulumi: Path) -> None:
    """`{}` would look like success to a script."""
    (pulumi / "stack-output").write_text("{}")
    with pytest.raises(Failure, match="no outputs"):
        driver.show_outputs(Stack("dev", repository), show_secrets=False)


def test_down_keeps_the_committed_configuration(repository: Path, pulumi: Path) -> None:
    """`pulumi stack rm` deletes Pulumi.<stack>.yaml unless told otherwise."""
    (pulumi / "stack-ls").write_text(json.dumps([{"name": "dev"}]))
    driver.down(Stack("dev", repository))
    (removal,) = [call for call in calls(pulumi) if call[:2] == ["stack", "rm"]]
    assert "--preserve-config" in removal


def test_down_leaves_nothing(repository: Path, pulumi: Path) -> None:
    """Not even the empty folder."""
    stack = Stack("dev", repository)
    stack.config_file()
    (repository / ".slipway" / "dev" / "logs").mkdir(parents=True)
    driver.down(stack)
    assert not (repository / ".slipway").exists()


def test_down_leaves_another_stack_alone(repository: Path, pulumi: Path) -> None:
    """Its state is encrypted with the shared passphrase."""
    state = repository / ".slipway" / "pulumi" / ".pulumi" / "stacks" / "slipway" / "prod.json"
    state.parent.mkdir(parents=True)
    state.touch()
    driver.down(Stack("dev", repository))
    assert state.exists()
    assert (repository / ".slipway" / "passphrase").exists()


def test_data_that_the_platform_kept_stays(repository: Path, pulumi: Path) -> None:
    """The configuration said so, and the platform has already deleted what was not to stay."""
    data = repository / ".slipway" / "dev" / "data"
    data.mkdir(parents=True)
    (data / "runs.aof").touch()
    (data.parent / "logs").mkdir()
    driver.down(Stack("dev", repository))
    assert [path.name for path in data.parent.iterdir()] == ["data"]
    assert (data / "runs.aof").exists()


@pytest.mark.parametrize(
    ("given", "own", "passed"),
    [
        (["--stack", "dev", "up"], ["--stack", "dev", "up"], []),
        (["evaluate", "--only", "memory"], ["evaluate"], ["--only", "memory"]),
        (["--stack", "prod", "pulumi", "stack", "ls"], ["--stack", "prod", "pulumi"], ["stack", "ls"]),
    ],
)
def test_words_after_a_passing_verb_are_left_to_its_program(
    given: list[str], own: list[str], passed: list[str]
) -> None:
    """`make evaluate ARGS="--only memory"` begins with an option that is not ours."""
    assert split(given) == (own, passed)


def spec(repository: Path, program: str, **env: str) -> None:
    """What the local platform keeps of a program for its own start."""
    folder = repository / ".slipway" / "dev" / "specs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{program}.json").write_text(json.dumps({"command": ["python"], "env": env, "cwd": "/"}))


def test_slipway_gets_the_settings_of_the_stable_release(repository: Path) -> None:
    """A canary may have others, and a shadow release keeps what it writes apart."""
    stack = Stack("dev", repository)
    spec(repository, "api-stable.1a", RELEASE="stable", REDIS_URL="redis://:pw@one/0")
    spec(repository, "api-canary.2b", RELEASE="canary", REDIS_URL="redis://:pw@two/0")
    spec(repository, "api-next.3c", RELEASE="stable", REDIS_URL="redis://:pw@one/0", REDIS_KEY_PREFIX="shadow:next:")
    assert driver.service_settings(stack) == {"RELEASE": "stable", "REDIS_URL": "redis://:pw@one/0"}


def test_slipway_gets_its_settings_by_environment_alone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user of the machine can read arguments."""
    spec(repository, "api-stable.1a", RELEASE="stable", REDIS_URL="redis://:hidden@one/0")
    become: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda program, words, environment: become.append((words, environment)))
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    driver.slipway(Stack("dev", repository), ["runs", "list", "--json"])
    ((words, environment),) = become
    assert words[1:] == ["-m", "app.cli", "runs", "list", "--json"]
    assert environment["REDIS_URL"] == "redis://:hidden@one/0"


def test_slipway_of_a_stack_that_is_not_up_says_what_to_do(repository: Path) -> None:
    with pytest.raises(Failure, match="brought up") as raised:
        driver.service_settings(Stack("dev", repository))
    assert "make up STACK=dev" in raised.value.fix


def test_the_local_platform_fetches_no_plugins(repository: Path) -> None:
    """Pulumi fetches those of every package that is installed; only Kubernetes needs any."""
    variable = "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"
    assert Stack("dev", repository).environment()[variable] == "true"
    (repository / "Pulumi.prod.yaml").write_text("config:\n  slipway:platform: kubernetes\n")
    assert variable not in Stack("prod", repository).environment()
