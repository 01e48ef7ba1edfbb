"""What the pages claim exists: targets, routes, variables, links, and an example that runs.

The pages are also what the agent answers from, so a wrong one gives wrong answers.
"""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest

from app.api.main import create_app
from app.infra.settings import GROUPS, REPOSITORY, load, variable
from app.tools.registry import ToolRegistry

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
FOREIGN = {
    "SLIPWAY_API_KEY",
    "SHOW_SECRETS",
    "SECRETS_PATH",
    "PULUMI_BACKEND_URL",
    "PULUMI_CONFIG_PASSPHRASE",
    "LAST",
    "ARGS",
    "STACK",
    "URL",
    "KEY",
    "RUN_ID",
    "SIGTERM",
    "SIGKILL",
}
"""Names in capitals that are no settings: Pulumi's, shell variables of examples, signals, arguments of make."""

NUMBER = re.compile(r"(\d[\d,]*|one) (\w+?)s?(?: \w+){0,5} \(`([A-Z_]+)`\)")
"""An amount, its unit, and the variable that it is the default of, as prose has them: `5 seconds (`LEASE_SECONDS`)`."""

page = pytest.mark.parametrize("path", [REPOSITORY / "README.md", *PAGES], ids=lambda path: path.name)


def code_of(path: Path) -> str:
    """What a page sets as code: spans and blocks."""
    text = path.read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL))


@page
def test_a_command_is_a_target(path: Path) -> None:
    """Whoever copies a line gets what the page says."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake\s+(?:-s\s+)?([a-z][a-z-]*)", code_of(path)))
    assert named - targets == set()


@pytest.fixture(scope="module")
def served() -> set[str]:
    """Method and path of every route, as the application's own description has them."""
    paths = create_app(load(None)).openapi()["paths"]
    routes = {f"{method.upper()} {route}" for route, methods in paths.items() for method in methods}
    return routes | {"GET /docs", "GET /openapi.json"}


@page
def test_a_route_is_served(path: Path, served: set[str]) -> None:
    """A reader calls what the page names."""
    named = set(re.findall(r"`((?:GET|POST|DELETE|PUT) /[a-z/{}_.]*)`", path.read_text(encoding="utf-8")))
    assert {route.replace("{id}", "{memory_id}") for route in named} - served == set()


@page
def test_a_variable_is_a_setting(path: Path) -> None:
    """With the name that the service reads."""
    known = {variable(group, name) for group in GROUPS.values() for name in group.model_fields}
    text = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"))
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", text))
    assert named - known - FOREIGN == set()


def test_numbers_beside_variables_are_found_at_all() -> None:
    """The next test reads prose with a pattern: it must not pass because the pattern fits nothing."""
    text = " ".join((REPOSITORY / "docs/runs.md").read_text(encoding="utf-8").split())
    assert len(NUMBER.findall(text)) >= 6


@page
def test_a_number_beside_a_variable_is_its_default(path: Path) -> None:
    """`5 seconds (`LEASE_SECONDS`)` must not outlive a change of the default."""
    defaults = {
        variable(group, name): field.default for group in GROUPS.values() for name, field in group.model_fields.items()
    }
    text = " ".join(path.read_text(encoding="utf-8").split())
    factors = {"second": 1, "hour": 3_600, "day": 86_400}
    for amount, unit, name in NUMBER.findall(text):
        value = 1.0 if amount == "one" else float(amount.replace(",", ""))
        assert value * factors.get(unit, 1) == float(defaults[name]), f"{amount} {unit} of {name}"


@page
def test_a_link_leads_somewhere(path: Path) -> None:
    """Pages are renamed more easily than the links to them."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


# Not the tables of settings: they are long by nature, and each row stands for itself.
@pytest.mark.parametrize(
    "path", [path for path in PAGES if path.name != "configuration.md"], ids=lambda path: path.name
)
def test_a_section_fits_what_a_small_model_is_shown(path: Path) -> None:
    """A heading's text up to the next; much longer ones are cut into passages that lose their beginning."""
    sections = re.split(r"(?m)^#{1,6} ", path.read_text(encoding="utf-8"))
    longest = max(sections, key=len)
    assert len(longest) <= 2_200, f"split: {longest.splitlines()[0]} has {len(longest)} characters"


async def test_the_tool_of_the_page_can_be_registered_and_called() -> None:
    """What a newcomer copies works, its refusal included."""
    text = (REPOSITORY / "docs/tools.md").read_text(encoding="utf-8")
    # Annotations are looked up by name in the module that defines them, so the example needs one.
    module = types.ModuleType("example_of_the_page")
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], module.__dict__)
    tools = ToolRegistry([module.ORDER_STATUS])

    async def call(number: int) -> tuple[bool, str]:
        result = await tools.invoke("order_status", {"order_id": number}, call_id="a", task_id="t", context=None)
        return result.ok, result.text

    assert await call(7) == (True, "Order 7 is on its way.")
    assert await call(10_001) == (False, "there is no such order; ask for its number")
    assert (await call(0))[0] is False
