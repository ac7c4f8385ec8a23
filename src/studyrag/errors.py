"""Every error a user can meet: what happened, where, and the command or edit that mends it.

Adapters translate a library's errors into these (``raise … from err``); only the entry point of the command line turns
one into text on stderr and an exit code. ``Misuse`` (exit code 2) is what the caller typed; all else is a failure (1).
"""

from __future__ import annotations


class StudyRagError(Exception):
    """Base of all. ``fix`` is one sentence or command that mends it; ``exit_code`` is what the process returns."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class Misuse(StudyRagError):
    """The call itself is wrong: an empty question, an unknown option value, a folder that is not there."""

    exit_code = 2


class SettingsError(Misuse):
    """studyrag.toml, an environment variable or a flag holds something that cannot be used."""


class NotesError(StudyRagError):
    """The notes folder cannot be read at all (single unreadable notes are skipped and reported instead)."""


class IndexMissing(StudyRagError):
    """No index has been built at this place yet."""


class IndexDamaged(StudyRagError):
    """The index files do not match their own checksums, or cannot be parsed."""


class IndexMismatch(StudyRagError):
    """The index was built by another version, or with another embedding model or splitter."""


class IndexBusy(StudyRagError):
    """Another process is building the index."""


class IndexNotWritable(StudyRagError):
    """The index directory cannot be written: permissions, or no space left."""


class ModelMissing(StudyRagError):
    """A model is needed that is not installed."""


class ModelDamaged(StudyRagError):
    """A model file is not what its hash or its format says."""


class PullFailed(StudyRagError):
    """A model could not be fetched from any of its sources."""


class GenerationFailed(StudyRagError):
    """The generator broke off, refused, or could not be reached."""
