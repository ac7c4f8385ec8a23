"""Every bar of the design's table "Speed and size" that concerns the shipped corpus: `make bench`.

Prints one table and writes JSON; exits with 1 when a bar is missed or could not be measured. See README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
from measures import MEASURES, Plan
from measuring import NotMeasured, say
from rows import MISSED, UNKNOWN, Row, missing, records, table
from workspace import workspace

RESULTS = Path(__file__).resolve().parent / "results"
BUSY = 0.3


def main() -> int:
    options = _options()
    facts = machine.facts()
    load = machine.load_per_core()
    if load is not None and load > BUSY:
        say(f"warning: others keep {load:.0%} of the processor busy: these times are rough")
    versions: dict[str, str] = {}
    models: dict[str, dict[str, Any]] = {}
    rows: list[Row] = []
    try:
        with workspace() as work:
            plan = Plan(work, options.n, options.langchain, versions)
            models = {
                str(model["name"]): {"sha256": machine.model_hash(Path(model["path"])), "bytes": model["bytes"]}
                for model in work.models
                if model["path"]
            }
            for name in options.only:
                rows += _measured(name, plan)
    except NotMeasured as err:
        say(f"error: {err}")
        return 1
    print(table(rows))
    _write(options, facts, versions, models, rows)
    return 1 if any(row.verdict in (MISSED, UNKNOWN) for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="this measurement only; repeatable")
    parser.add_argument("-n", type=int, help="repeats of each measurement (5)")
    parser.add_argument("--quick", action="store_true", help="one repeat, to see that everything works")
    parser.add_argument("--no-langchain", dest="langchain", action="store_false", help="leave LangChain's side out")
    parser.add_argument("--output", type=Path, help="JSON file; results/speed.json, or partial.json for less than all")
    options = parser.parse_args()
    whole = not options.only and not options.quick and options.langchain and (options.n is None or options.n >= 5)
    options.n = options.n or (1 if options.quick else 5)
    if options.n < 1:
        parser.error("-n must be at least 1")
    options.only = options.only or list(MEASURES)
    options.output = options.output or RESULTS / ("speed.json" if whole else "partial.json")
    return options


def _measured(name: str, plan: Plan) -> list[Row]:
    try:
        return MEASURES[name](plan)
    except NotMeasured as err:
        return [missing(name, str(err))]


def _write(
    options: argparse.Namespace,
    facts: Mapping[str, Any],
    versions: Mapping[str, str],
    models: Mapping[str, Any],
    rows: Sequence[Row],
) -> None:
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "versions": {**facts["versions"], "langchain's side": dict(versions)},
        "models": models,
        "n": options.n,
        "measured": options.only,
        "rows": records(rows),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"wrote {options.output}")


if __name__ == "__main__":
    sys.exit(main())
