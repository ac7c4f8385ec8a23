"""Made-up models and the places they come from: a hub and a package index on 127.0.0.1, and folders of wheels.

For test_store.py. The hub and the index answer as the real ones do, and can be told to misbehave.
"""

from __future__ import annotations

import hashlib
import io
import random
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def gguf(n_bytes: int = 3_000_000) -> bytes:
    return b"GGUF" + random.Random(1).randbytes(n_bytes - 4)


def entry_toml(name: str, files: Mapping[str, str], sources: list[str], kind: str = "generator") -> str:
    """``files``: name -> the rest of its inline table, after the name."""
    rows = ", ".join(f'{{ name = "{file}", {rest} }}' for file, rest in files.items())
    return (
        f'[{name}]\nkind = "{kind}"\ndefault = true\nsummary = "made up"\nlicence = "MIT"\ncontext_tokens = 64\n'
        f'chat_format = ""\nfiles = [ {rows} ]\nsources = [ {", ".join(sources)} ]\n'
    )


def pinned(data: bytes) -> str:
    return f'bytes = {len(data)}, sha256 = "{sha(data)}"'


HUB = '{ kind = "hub", repo = "org/tiny", revision = "main" }'


def wheels(packages: list[str], member: str) -> str:
    names = ", ".join(f'"{package}==1.0"' for package in packages)
    return f'{{ kind = "wheels", packages = [{names}], member = "{member}" }}'


def wheel(package: str, members: Mapping[str, bytes]) -> tuple[str, bytes]:
    """File name and bytes of a wheel that pip accepts. Its __init__ would tell, if anything imported it."""
    module = package.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{module}/__init__.py", "raise SystemExit('a wheel was imported')")
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{module}-1.0-py3-none-any.whl", out.getvalue()


def put_wheel(folder: Path, package: str, members: Mapping[str, bytes]) -> Path:
    name, data = wheel(package, members)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


class FakeHub:
    """The hub's resolve endpoint for one repository. ``requests`` records (method, file, Range header)."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.etags = {name: sha(data) for name, data in files.items()}
        self.html_for: set[str] = set()
        self.commit: str | None = COMMIT
        self.cuts = 0
        self.cut_after = 1_000_000
        self.reset = False
        self.requests: list[tuple[str, str, str | None]] = []
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[FakeHub]:
        with _serving(self._handler()) as url:
            self.url = url
            yield self

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                name = self.path.split("/", 5)[-1]
                hub.requests.append((self.command, name, self.headers.get("Range")))
                data = hub.files.get(name)
                if data is None:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if body and self.command in hub.html_for:
                    data = b"<!DOCTYPE html><html><body>Please log in</body></html>"
                start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
                self.send_response(206 if start else 200)
                if hub.commit:
                    self.send_header("X-Repo-Commit", hub.commit)
                self.send_header("ETag", f'"{hub.etags[name]}"')
                self.send_header("Content-Length", str(len(data) - start))
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.end_headers()
                if body and hub.cuts and len(data) > hub.cut_after:
                    hub.cuts -= 1
                    self.wfile.write(data[start : start + hub.cut_after])
                    self.wfile.flush()
                    if hub.reset:
                        time.sleep(0.3)  # what was sent is read before the reset throws it away
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        socket.close(self.connection.detach())
                    else:
                        self.connection.shutdown(socket.SHUT_RDWR)
                elif body:
                    self.wfile.write(data[start:])

            def log_message(self, *_args: object) -> None:
                return None

        return Handler


class FakeIndex:
    """A package index. A wheel whose package is in ``stalled`` begins to come, and then does not go on."""

    def __init__(self, packages: Mapping[str, Mapping[str, bytes]]) -> None:
        self.wheels = {package: wheel(package, members) for package, members in packages.items()}
        self.stalled: set[str] = set()
        self.stalling = threading.Event()
        self.served: list[str] = []
        self._released = threading.Event()
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[FakeIndex]:
        with _serving(self._handler()) as url:
            self.url = f"{url}/simple"
            try:
                yield self
            finally:
                self._released.set()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = self.path.strip("/").split("/")
                if parts[0] == "simple" and parts[1] in index.wheels:
                    file, _ = index.wheels[parts[1]]
                    self._send(f'<a href="/files/{parts[1]}/{file}">{file}</a>'.encode(), "text/html")
                elif parts[0] == "files":
                    index.served.append(parts[1])
                    self._send(index.wheels[parts[1]][1], "application/zip", stall=parts[1] in index.stalled)
                else:
                    self.send_error(404)

            def _send(self, data: bytes, kind: str, *, stall: bool = False) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if stall:
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    index.stalling.set()
                    index._released.wait(30)
                else:
                    self.wfile.write(data)

            def log_message(self, *_args: object) -> None:
                return None

        return Handler


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
