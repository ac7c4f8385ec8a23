"""The command line: ``main`` is the one place where an error becomes text on stderr and an exit code.

0 done (an abstention too), 1 failure, 2 misuse, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import sys

_STOPPED = 130


def main() -> None:
    """Runs the command line of this process, and exits."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "RAGAS_DO_NOT_TRACK"):
        os.environ.setdefault(name, "true")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")  # looking for plugins reads every installed package: 20 ms
    sys.exit(_run())


def command() -> None:
    """Entry point of the ``studyrag`` command: ``main``, and then the end of the process, at once.

    All is written and closed by then, and taking models and libraries apart would cost a search 90 ms.
    """
    try:
        main()
    except SystemExit as end:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if isinstance(end.code, int):
            os._exit(end.code)
        raise


def _run() -> int:
    from typer import Abort, TyperException

    from studyrag.cli.app import app
    from studyrag.errors import StudyRagError

    try:
        code = app(standalone_mode=False)
        if code == _STOPPED:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except StudyRagError as err:
        _report(err.message, err.fix)
        return err.exit_code
    except TyperException as err:
        message, context = err.format_message(), getattr(err, "ctx", None)
        if context is not None and message == context.get_help():  # a bare `studyrag`
            print(message)
        else:
            _report(message, f"see `{context.command_path if context else 'studyrag'} --help`")
        return err.exit_code
    except SystemExit as err:
        if isinstance(err.__context__, BrokenPipeError):  # whoever read has seen enough
            return 0
        raise
    except (KeyboardInterrupt, Abort):
        print("\nstopped", file=sys.stderr)
        return _STOPPED
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as err:  # of stdout: stages translate theirs
        _drop_output()
        _report(f"{err.filename or 'standard output'}: {err.strerror}", "free some disk space, or send it elsewhere")
        return 1


def _drop_output() -> None:
    """What is still buffered goes nowhere: flushing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(message: str, fix: str) -> None:
    from studyrag.cli.terminal import say

    say(f"error: {message}")
    say(f"  fix: {fix}")
