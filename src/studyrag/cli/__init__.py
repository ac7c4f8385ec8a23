"""The command line: ``main`` is the one place where an error becomes text on stderr and an exit code.

0 done (an abstention too), 1 failure, 2 misuse, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of the ``studyrag`` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "RAGAS_DO_NOT_TRACK"):
        os.environ.setdefault(name, "true")
    sys.exit(_run())


def _run() -> int:
    from click.exceptions import Abort, ClickException

    from studyrag.cli.app import app
    from studyrag.errors import StudyRagError

    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except StudyRagError as err:
        _report(err.message, err.fix)
        return err.exit_code
    except ClickException as err:
        err.show()
        return err.exit_code
    except (KeyboardInterrupt, Abort):
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _report(message: str, fix: str) -> None:
    from studyrag.cli.terminal import say

    say(f"error: {message}")
    say(f"  fix: {fix}")
