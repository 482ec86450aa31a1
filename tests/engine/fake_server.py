"""Speaks enough of the API to test the client and the file jobs without a model: `fake_server.py OPTIONS`.

Vectors are a hash of the item, logits the number of query words that a document has. A text with BAD in it
is a bad item, one with SLOW takes too long; an item that is a number is a bad request. `GET /log` lists
what came in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

DEFAULTS: dict[str, Any] = {
    "port": 0,
    "delay": 0.0,
    "key": None,
    "refusals": [],  # [status, headers, body] of the first requests
    "unlisted": [],  # the same of the first questions after its models
    "dimensions": 8,
    "card": {"dimensions": 8, "max_length": 99, "dtype": "float32"},  # of its models
    "most": 10_000,  # items of one request
    "seed": 0,  # another one is another model
    "name": "fake-embedder",
}


def vector(item: Any, dimensions: int, seed: int = 0) -> list[float]:
    said = json.dumps(item, sort_keys=True) + " " * seed
    digest = hashlib.sha256(said.encode()).digest()
    values = [byte - 127.5 for byte in digest[:dimensions]]
    norm = sum(value * value for value in values) ** 0.5
    return [value / norm for value in values]


def error(message: str, code: str, param: str | None) -> dict[str, Any]:
    return {"message": message, "type": "invalid_request_error", "code": code, "param": param}


def is_bad(item: Any) -> bool:
    return "BAD" in (item if isinstance(item, str) else str(item.get("text")))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options: ClassVar[dict[str, Any]] = dict(DEFAULTS)
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        roles = ("embedder", "reranker")
        models = [{"id": f"fake-{role}", "role": role, **self.options["card"]} for role in roles]
        if self.path == "/v1/models" and self.options["unlisted"]:
            status, headers, refusal = self.options["unlisted"].pop(0)
            self.reply(status, refusal, headers)
            return
        if self.path == "/v1/models" and self.refused():
            return
        replies: dict[str, Any] = {"/log": self.seen, "/v1/models": {"data": models}, "/health/ready": {}}
        self.reply(200 if self.path in replies else 404, replies.get(self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append({"path": self.path, "key": self.headers["authorization"], "body": body})
        if self.options["refusals"]:
            status, headers, refusal = self.options["refusals"].pop(0)
            self.reply(status, refusal, headers)
            return
        time.sleep(self.options["delay"])
        if self.refused():
            return
        self.embed(body) if self.path == "/v1/embeddings" else self.rerank(body)

    def refused(self) -> bool:
        if not self.options["key"] or self.headers["authorization"] == f"Bearer {self.options['key']}":
            return False
        self.reply(401, {"error": error("wrong key", "invalid_api_key", None)})
        return True

    def embed(self, body: dict[str, Any]) -> None:
        dimensions = body.get("dimensions") or self.options["dimensions"]
        if dimensions > self.options["dimensions"]:
            return self.reply(400, {"error": error("dimensions: too many", "invalid_request", "dimensions")})
        if len(body["input"]) > self.options["most"]:
            return self.reply(413, {"error": error("too many items", "too_large", "input")})
        data: list[dict[str, Any]] = []
        for i, item in enumerate(body["input"]):
            where = f"input[{i}]"
            if "SLOW" in str(item):
                return self.reply(504, {"error": error("no answer in time", "deadline_exceeded", None)})
            if not isinstance(item, str | dict):
                return self.reply(400, {"error": error(f"{where}: not an item", "invalid_request", where)})
            if is_bad(item):
                wrong = error(f"{where}.text is bad", "unprocessable", f"{where}.text")
                if body.get("on_error") != "skip":
                    return self.reply(422, {"error": wrong})
                data.append({"object": "error", "index": i, "error": wrong})
                continue
            packed = struct.pack(f"<{dimensions}f", *vector(item, dimensions, self.options["seed"]))
            data.append({"index": i, "embedding": base64.b64encode(packed).decode()})
        return self.reply(
            200, {"data": data[::-1], "model": self.options["name"], "usage": {"prompt_tokens": 3}}
        )

    def rerank(self, body: dict[str, Any]) -> None:
        words = str(body["query"]).split()
        logits = [sum(word in str(document) for word in words) for document in body["documents"]]
        results: list[dict[str, Any]] = [
            {
                "index": i,
                "error": error(f"documents[{i}].text is bad", "unprocessable", f"documents[{i}].text"),
            }
            if is_bad(body["documents"][i])
            else {"index": i, "relevance_score": float(logit)}
            for i, logit in enumerate(logits)
        ]
        return self.reply(200, {"results": results, "model": "fake-reranker", "usage": {"total_tokens": 2}})

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    Handler.options |= json.loads(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", Handler.options["port"]), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
