"""Whether the models' endpoint answers, without paying for a completion."""

from __future__ import annotations

import httpx

from app.infra.settings import ModelSettings
from app.models.registry import ModelRegistry, Provider

OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com"


def endpoints(settings: ModelSettings) -> list[str]:
    """Addresses that must answer for every role to work: OpenAI's API, or what stands in for it, and Anthropic's."""
    found = []
    for entry in ModelRegistry.load(settings).in_use():
        if entry.provider is Provider.ANTHROPIC:
            found.append(f"{ANTHROPIC}/v1/models")
        else:
            found.append(f"{(settings.openai_base_url or OPENAI).rstrip('/')}/models")
    return list(dict.fromkeys(found))


async def reachable(settings: ModelSettings, client: httpx.AsyncClient) -> bool:
    """Whether each endpoint in use answers at all, within the client's time limit.

    No key is sent: a refusal (401, 403, 404) proves that somebody is there, and an overload (5xx, 429) is what a
    retry is for, except 502 to 504, with which a gateway says that nobody is behind it. Never raises.
    """
    for address in endpoints(settings):
        try:
            response = await client.get(address)
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        if response.status_code in (502, 503, 504):
            return False
    return True
