"""`python -m bench`: the service beside what it cannot be faster than, interleaved in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cases import Case, cases
from bench.crowd import Crowd
from bench.floors import BareBash, PlainKernel, PlainServer
from bench.frontends import Frontends
from bench.report import compare, markdown, report, show
from bench.service import service
from bench.way_out import way_out

if TYPE_CHECKING:
    from bench.report import Measured, Report


def main() -> None:
    arguments = _arguments()
    if arguments.compare:
        return compare(*(json.loads(path.read_text()) for path in arguments.compare))
    result = run(arguments.only, arguments.scale)
    show(result)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="and as a table there")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="two such files")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer rounds of each")
    return parser.parse_args()


def run(only: str = "", scale: float = 1.0) -> Report:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        asyncio.Runner() as runner,
        service() as api,
        closing(BareBash()) as bash,
        closing(PlainKernel(runner.get_loop())) as kernel,
        closing(PlainServer()) as server,
        way_out() as way,
        closing(Crowd()) as crowd,
        closing(Frontends(api)) as frontends,
    ):
        loop, place = runner.get_loop(), Path(folder)
        every = cases(api, bash, kernel, server, loop, place, way, crowd, frontends)
        return report(measure([case for case in every if only in case.name], scale))


def measure(chosen: list[Case], scale: float) -> Measured:
    """All cases in turn, round after round, so that a busy moment falls on all of them."""
    measured: Measured = {case.name: ([], []) for case in chosen}
    rounds = [max(2, round(case.rounds * scale)) for case in chosen]
    for number in range(-1, max(rounds, default=0)):  # the first one warms up
        for case in (case for case, most in zip(chosen, rounds, strict=True) if number < most):
            sides = [(case.ours, 0), (case.floor, 1)] if case.floor else [(case.ours, 0)]
            for operation, side in sides if number % 2 else reversed(sides):
                if side == 0 and case.prepare:
                    case.prepare()
                start = time.perf_counter()
                told = operation()
                seconds = time.perf_counter() - start
                if callable(told):
                    told()
                elif isinstance(told, float):
                    seconds = told
                if number >= 0:
                    measured[case.name][side].append(seconds)
    return measured


if __name__ == "__main__":
    main()
