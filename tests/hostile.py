"""Ways to be unkind to the command: limits, signals, a terminal, and servers that stop half-way.

Everything here acts on real processes. A wait that never ends fails after ``PATIENCE_S``: a guard, not a measurement.
"""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Self

from tests.conftest import Ran, cli_environment
from tests.stub_endpoint import event

PATIENCE_S = 60.0
CORPUS = Path(__file__).parent / "corpus"

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""What no terminal may get from notes, models or servers; tab and newline are all that is left of the controls."""

_LAUNCHER = """
import ctypes, os, resource, signal, sys
unprivileged, file_bytes = sys.argv[1] == "True", sys.argv[2]
signal.signal(signal.SIGINT, signal.SIG_DFL)  # shells without job control hand it down ignored
if unprivileged and os.geteuid() == 0:
    drop, over, read_search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if any(ctypes.CDLL(None, use_errno=True).prctl(drop, capability, 0, 0, 0) for capability in (over, read_search)):
        sys.exit("these tests run as root, but cannot give up its power over permissions")
if file_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), int(file_bytes)))
os.execv(sys.argv[3], sys.argv[3:])
"""


def launched(*, unprivileged: bool = False, file_bytes: int | None = None) -> list[str]:
    """What to put before a command: it then can be interrupted; permissions count for it even as root; and its files
    may grow to ``file_bytes`` only (a full disk, as far as a program can tell)."""
    limit = "" if file_bytes is None else str(file_bytes)
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(unprivileged), limit]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "studyrag", *arguments]


def assert_plain(*texts: str) -> None:
    for text in texts:
        found = UNSAFE.search(text)
        assert found is None, f"U+{ord(found.group()):04X} in {text[max(0, found.start() - 60) : found.end() + 60]!r}"


def assert_refused(ran: Ran, code: int, *said: str) -> None:
    """An error as users get it: what and the fix on stderr, the right exit code, nothing on stdout, no traceback."""
    assert ran.code == code, ran
    assert "Traceback" not in ran.err
    assert "error: " in ran.err, ran.err
    assert "\n  fix: " in ran.err, ran.err
    for words in said:
        assert words in ran.err, (words, ran.err)
    assert_plain(ran.out, ran.err)


def generations(index: Path) -> list[str]:
    return sorted(path.name for path in index.glob("g-*"))


class _Ended:
    """Kills the command when the test is over, however it ends."""

    process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Running(_Ended):
    """A command in the background, with what it has printed so far."""

    def __init__(self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: bool = False) -> None:
        self.process = subprocess.Popen(
            [*launched(), *command(*arguments)],
            cwd=cwd,
            # Interrupted between open() and the "with" that would close it, a file is left to the collector.
            env={**cli_environment(env), "PYTHONWARNINGS": "error,ignore::ResourceWarning"},
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._came = threading.Condition()
        self._text = {"out": "", "err": ""}
        self._open = {"out", "err"}
        assert self.process.stdout is not None and self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: IO[bytes]) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while part := os.read(stream.fileno(), 65536):
            with self._came:
                self._text[name] += decoder.decode(part)
                self._came.notify_all()
        with self._came:
            self._open.discard(name)
            self._came.notify_all()

    def wait_for(self, stream: str, text: str) -> None:
        with self._came:
            came = self._came.wait_for(lambda: text in self._text[stream] or stream not in self._open, PATIENCE_S)
        assert came and text in self._text[stream], (text, self._text)

    def wait_until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < end, self._text
            time.sleep(0.001)

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def finish(self) -> Ran:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return Ran(self.process.returncode, self._text["out"], self._text["err"])


class Terminal(_Ended):
    """A command at a pseudo-terminal, where stdin, stdout and stderr are all the same screen."""

    def __init__(self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=cwd,
            env=cli_environment({"TERM": "xterm-256color", "COLUMNS": "200", **(env or {})}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.screen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def _read(self, seconds: float) -> bool:
        """Whether there may be more to come."""
        if select.select([self._master], [], [], seconds)[0]:
            try:
                part = os.read(self._master, 65536)
            except OSError:  # Linux's way of saying that the other end is closed
                return False
            self.screen += self._decoder.decode(part)
            return bool(part)
        raise AssertionError(f"the command hangs; the screen shows {self.screen!r}")

    def wait_for(self, text: str) -> None:
        while text not in self.screen:
            assert self._read(PATIENCE_S), (text, self.screen)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def finish(self) -> int:
        """The exit code, once everything has been read."""
        while self._read(PATIENCE_S):
            pass
        return self.process.wait(PATIENCE_S)

    def __exit__(self, *error: object) -> None:
        os.close(self._master)
        super().__exit__(*error)


@dataclass
class Held:
    """An endpoint that says ``before``, waits for ``release``, then says ``after``. ``bodies``: what it was sent."""

    before: str = ""
    after: str = ""
    url: str = ""
    bodies: list[Any] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def generator(self) -> str:
        return f"openai:{self.url}/v1#stub"


@contextmanager
def held_endpoint(before: str = "", after: str = "") -> Iterator[Held]:
    held = Held(before, after)

    class Handler(Quiet):
        def do_POST(self) -> None:
            held.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self._say(held.before)
            held.asked.set()
            held.release.wait(PATIENCE_S)
            self._say(held.after)
            self.wfile.write(b"data: [DONE]\n\n")

        def _say(self, text: str) -> None:
            for word in re.findall(r"\S+\s*|\s+", text):
                self.wfile.write(event(word).encode())

    with serving(Handler) as held.url:
        try:
            yield held
        finally:
            held.release.set()


@contextmanager
def saying(text: str) -> Iterator[Held]:
    """An endpoint that always answers ``text``, at once."""
    with held_endpoint(before=text) as held:
        held.release.set()
        yield held


@contextmanager
def stalled_hub(n_bytes: int) -> Iterator[tuple[str, threading.Event]]:
    """A model hub that sends the first part of a file of ``n_bytes``, and then no more: (address, "it has begun")."""
    begun, over = threading.Event(), threading.Event()

    class Handler(Quiet):
        def do_HEAD(self) -> None:
            self.send_response(200)
            headers = {"X-Repo-Commit": "c" * 40, "ETag": f'"{"a" * 64}"', "Content-Length": str(n_bytes)}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(b"GGUF" + bytes(1_000_000))
            self.wfile.flush()
            begun.set()
            over.wait(PATIENCE_S)

    with serving(Handler) as url:
        try:
            yield url, begun
        finally:
            over.set()


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return  # the client has gone


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
