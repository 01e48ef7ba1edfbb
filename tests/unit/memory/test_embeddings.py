"""Choosing an embedding model, and what the bundled one promises."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest

import app.memory.embeddings
from app.infra.errors import ConfigurationError, Unavailable
from app.infra.settings import Settings, load
from app.memory.embeddings import MiniLm, RemoteEmbeddings, _encoder, open_embeddings
from app.memory.qdrant import collection_name


def settings_with(**models: object) -> Settings:
    settings = load(None)
    return settings.model_copy(update={"models": settings.models.model_copy(update=models)})


def test_without_a_word_the_bundled_model_is_used() -> None:
    """No key, no network, and search by meaning still works."""
    assert isinstance(open_embeddings(settings_with(embedding_model="minilm")), MiniLm)


def test_a_remote_model_without_a_server_stops_the_start() -> None:
    """Else the first search would fail, hours after the deployment."""
    remote = {"embedding_model": "text-embedding-3-small", "openai_api_key": None}
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL"):
        open_embeddings(settings_with(**remote, openai_base_url=None))
    model = open_embeddings(settings_with(**remote, openai_base_url="http://127.0.0.1:1/v1"))
    assert isinstance(model, RemoteEmbeddings)


async def test_a_remote_model_that_is_away_is_unavailable() -> None:
    """Search goes on by word when it hears this error, and no other."""
    model = open_embeddings(
        settings_with(embedding_model="other", openai_api_key=None, openai_base_url="http://127.0.0.1:1/v1")
    )
    with pytest.raises(Unavailable, match="embedding model other"):
        await model.aembed_query("x")


async def test_vectors_have_length_one_and_depend_on_the_text_alone() -> None:
    """Cosine, ids and caches rely on it; a batch must not change what a text means."""
    model = MiniLm()
    alone = await model.aembed_query("A worker dies.")
    among = (await model.aembed_documents(["something much longer than the other text " * 20, "A worker dies."]))[1]
    assert alone == among
    assert len(alone) == await model.dimensions() == 384
    assert math.isclose(sum(number * number for number in alone), 1, rel_tol=1e-5)
    near, far = await model.aembed_documents(["The process was killed.", "Lunch is at noon."])
    assert dot(alone, near) > dot(alone, far) + 0.2
    await model.close()


async def test_models_of_a_process_share_one_network() -> None:
    """Store, search and classifier each open one: a network each would take 94 MB more for every one."""
    one, other = MiniLm(), MiniLm()
    assert await one.aembed_query("The tide is out.") == await other.aembed_query("The tide is out.")
    assert _encoder.cache_info().currsize == 1
    await one.close()
    assert len(await other.aembed_query("A model that is closed leaves the others theirs.")) == 384
    await other.close()


async def test_what_is_done_to_a_vector_leaves_the_next_one_alone() -> None:
    """The last few are kept; a caller that scales its own in place must not change them."""
    model = MiniLm()
    vector = await model.aembed_query("The tide is in.")
    untouched = list(vector)
    vector[0] = 7.0
    assert await model.aembed_query("The tide is in.") == untouched
    await model.close()


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_the_vocabulary_is_the_one_its_notice_names() -> None:
    """One lost line would shift every token behind it, and nothing would say so."""
    folder = Path(app.memory.embeddings.__file__).parent
    digest = hashlib.sha256((folder / "minilm_vocab.txt").read_bytes()).hexdigest()
    assert digest in (folder / "minilm_vocab.NOTICE").read_text()


def test_names_of_models_become_names_of_collections() -> None:
    """A model is called `org/name:tag`; a collection must not be."""
    assert collection_name("documents", "stable", "org/name:tag", "384") == "documents-stable-org_name_tag-384"
