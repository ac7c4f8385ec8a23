"""Model files from the Hugging Face hub, resumed where a pull was broken off, within seconds when it is out of reach.

huggingface_hub's whole-file call starts again after every interruption (since 2.x its temporary file has a random
name) and retries an unreachable hub for a minute; so this uses the two calls below it: metadata, and a ranged GET.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from studyrag.errors import PullFailed
from studyrag.modelfiles import Tick, is_html

if TYPE_CHECKING:
    from studyrag.catalogue import HubSource, ModelFile

NETWORK_FIX = "check the network (HF_ENDPOINT, HTTPS_PROXY), then pull again: it resumes"
CONNECT_S = 5.0
"""How long the hub may take to answer before the next source is tried."""

_RESUMES = 3
_BLOCK = 1 << 18
_SHA256 = re.compile("[0-9a-f]{64}")
_Result = TypeVar("_Result")


def fetch_hub(source: HubSource, files: Sequence[ModelFile], into: Path, tick: Tick) -> dict[str, str]:
    """Put every file of ``files`` into the folder ``into``, unchecked, all from one commit.

    Returns the SHA-256 that the hub itself gives for each file that the catalogue does not pin.

    :raises PullFailed: when the hub is out of reach, refuses, or breaks off; what came is kept for the next time.
    :raises OSError: from the disk.
    """
    with _quiet_hub(), _translated(source):
        first = _metadata(source, files[0], source.revision)
        if not first.commit_hash:
            raise PullFailed("the answer is not the hub's: a proxy or login page?", fix=NETWORK_FIX)
        vouched: dict[str, str] = {}
        done = 0
        for file in files:
            size: int | None = file.bytes
            if file.sha256 is None:
                vouched[file.name], size = _vouched(source, file, first.commit_hash)
            elif file.loose:
                size = None
            place = into / file.name
            _download(_url(source, file, first.commit_hash), place, size, partial(_tick_from, tick, done))
            done += place.stat().st_size
            tick(done)
        return vouched


def _vouched(source: HubSource, file: ModelFile, commit: str) -> tuple[str, int | None]:
    metadata = _metadata(source, file, commit)
    if not _SHA256.fullmatch(metadata.etag or ""):
        raise PullFailed(f"{file.name}: the hub gives no SHA-256 to check it by", fix="pull it with --from PATH")
    return str(metadata.etag), metadata.size


def _url(source: HubSource, file: ModelFile, revision: str) -> str:
    """HF_ENDPOINT (a mirror) is read when it is needed; the library reads it when it is imported."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(source.repo, file.name, revision=revision, endpoint=os.environ.get("HF_ENDPOINT") or None)


def _metadata(source: HubSource, file: ModelFile, revision: str) -> Any:
    from huggingface_hub import get_hf_file_metadata

    url = _url(source, file, revision)
    return _within(2 * CONNECT_S, lambda: get_hf_file_metadata(url, timeout=CONNECT_S))


def _tick_from(tick: Tick, base: int, added: int) -> None:
    tick(base + added)


def _download(url: str, place: Path, size: int | None, tick: Tick) -> None:
    """One file, from where it was left; settings are small, and so start again. Resumes after a lost connection."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    if size is None or place.stat().st_size > size:
        place.write_bytes(b"")
    for attempt in range(_RESUMES + 1):
        at = place.stat().st_size
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        try:
            with place.open("r+b") as target:
                target.seek(at)
                counter = _counter(at, tick)
                http_get(url, target, resume_size=at, headers=headers, expected_size=size, tqdm_class=counter)
            return
        except httpx2.NetworkError:
            if attempt == _RESUMES or place.stat().st_size <= at:
                raise
        except (HfHubHTTPError, OfflineModeIsEnabled):
            raise
        except OSError as err:
            if err.errno is not None:  # the disk's, not the length check's
                raise
            raise _wrong_length(place) from err


def _wrong_length(place: Path) -> PullFailed:
    """After a length that does not fit: bytes that can never become the file are deleted."""
    came = "an HTML page came instead: a proxy or login page?" if is_html(place) else "the hub sent another length"
    place.unlink()
    return PullFailed(f"{place.name}: {came}", fix=NETWORK_FIX)


def _counter(at: int, tick: Tick) -> Any:
    """A stand-in for tqdm's class that draws nothing and reports bytes."""

    class Counter:
        def __init__(self, *_args: object, **_options: object) -> None:
            self.n = at

        def update(self, n: int = 1) -> None:
            self.n += n
            tick(self.n)

        def __enter__(self) -> Counter:
            return self

        def __exit__(self, *_error: object) -> None:
            return None

    return Counter


def _within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """``call``, given up after ``seconds`` even where it hangs in name resolution, which knows no timeout."""
    outcome: list[_Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as err:  # handed to the caller's thread
            failure.append(err)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise PullFailed(f"no answer within {seconds:.0f} seconds", fix=NETWORK_FIX)
    return outcome[0]


@contextmanager
def _translated(source: HubSource) -> Iterator[None]:
    """The library's errors as one line each."""
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as err:
        page = f"https://huggingface.co/{source.repo}"
        raise PullFailed("access must be asked for", fix=f"accept the licence at {page}, then `hf auth login`") from err
    except (RepositoryNotFoundError, RevisionNotFoundError, RemoteEntryNotFoundError) as err:
        raise PullFailed(f"the hub has no such file ({type(err).__name__})", fix=NETWORK_FIX) from err
    except OfflineModeIsEnabled as err:
        raise PullFailed("HF_HUB_OFFLINE is set", fix="unset HF_HUB_OFFLINE, then pull again") from err
    except HfHubHTTPError as err:
        raise PullFailed(f"the hub answered {err.response.status_code}", fix=NETWORK_FIX) from err
    except httpx2.TimeoutException as err:
        raise PullFailed("the hub did not answer in time", fix=NETWORK_FIX) from err
    except httpx2.HTTPError as err:
        raise PullFailed(f"cannot reach the hub ({_short(err)})", fix=NETWORK_FIX) from err


def _short(err: Exception) -> str:
    text = str(err).strip()
    return text.splitlines()[0][:150] if text else type(err).__name__


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """No log lines of the library on our stderr, no telemetry (its user agent asks the hub for a registry), and
    blocks small enough that little is lost with a connection and progress moves (by default 10 MB at a time).
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging as hub_logging

    level = hub_logging.get_verbosity()  # this also sets the logger up, which would reset the level later
    telemetry, block = constants.HF_HUB_DISABLE_TELEMETRY, constants.DOWNLOAD_CHUNK_SIZE
    hub_logging.set_verbosity(logging.CRITICAL)
    constants.HF_HUB_DISABLE_TELEMETRY, constants.DOWNLOAD_CHUNK_SIZE = True, _BLOCK
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        constants.HF_HUB_DISABLE_TELEMETRY, constants.DOWNLOAD_CHUNK_SIZE = telemetry, block
