"""An OpenAI-compatible server that needs nothing but Python, so that it can run beside the service in a container.

Asked for JSON it plans one document search for the question; else it answers with the beginning of the first passage
that it was shown, cited. It invents nothing, so its answers pass the agent's check.
"""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 9000
_PASSAGE = re.compile(r'<result number="1"[^>]*>\n(.*?)\n</result>', re.DOTALL)
_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def reply(asked: dict[str, Any]) -> str:
    """What the model says to a request's messages."""
    texts = [str(message["content"]) for message in asked["messages"]]
    if asked.get("response_format", {}).get("type") in ("json_schema", "json_object"):
        search = {"id": "found", "tool": "search_documents", "args": {"query": "run when a worker is killed"}}
        return json.dumps({"calls": [search]})
    passage = _PASSAGE.search("\n".join(texts))
    return f"{' '.join(passage[1].split()[:40])} [1]" if passage else "Nothing was found."


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"object": "list", "data": []}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text, fixed = reply(asked), {"id": "chatcmpl-1", "created": 0, "model": asked["model"]}
        if not asked.get("stream"):
            message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            body = {**fixed, "object": "chat.completion", "choices": [message], "usage": _USAGE}
            self._send("application/json", json.dumps(body))
            return
        deltas = [{"role": "assistant", "content": ""}, *({"content": f"{word} "} for word in text.split())]
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
        ]
        chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": _USAGE}]
        lines = [json.dumps({**fixed, "object": "chat.completion.chunk", **chunk}) for chunk in chunks]
        self._send("text/event-stream", "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]))

    def _send(self, kind: str, body: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test reads the service's log."""


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever()
