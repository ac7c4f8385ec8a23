"""A small OpenAI-compatible server on 127.0.0.1 that plays one scripted reply and remembers what it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def event(text: str | None, reason: str | None = None) -> str:
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": reason}]}) + "\n\n"


def words(text: str) -> str:
    """A whole stream that says ``text`` word by word, as OpenAI sends it: role first, then text, then usage."""
    role = 'data: {"choices": [{"delta": {"role": "assistant"}, "finish_reason": null}]}\n\n'
    pieces = "".join(event(f"{word} ") for word in text.split())
    return f': hello\n\n{role}{pieces}{event(None, "stop")}data: {{"choices": [], "usage": {{}}}}\n\ndata: [DONE]\n\n'


@dataclass
class Stub:
    """What the next requests get, and what came: ``(path, headers, body)`` each."""

    url: str = ""
    status: int = 200
    body: str = field(default_factory=lambda: words("A mean is a sum divided by a count."))
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@contextmanager
def running_stub() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stub.requests.append((self.path, dict(self.headers), sent))
            time.sleep(stub.delay_s)
            self.send_response(stub.status)
            for name, value in {"Content-Type": "text/event-stream", **stub.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(stub.body.encode())
            except OSError:
                return  # the client went away

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
