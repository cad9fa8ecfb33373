"""Figures in milliseconds, and tables of them."""

from __future__ import annotations

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

Measured = dict[str, tuple[list[float], list[float]]]
Report = dict[str, dict[str, Any]]


def figures(seconds: list[float]) -> dict[str, float]:
    values = sorted(value * 1000 for value in seconds)
    p95 = values[min(len(values) - 1, round(0.95 * len(values)))]
    median = statistics.median(values)
    return {"median": median, "p95": p95, "least": values[0], "runs": len(values)}


def report(measured: Measured) -> Report:
    """Per case: ours, the floor (or null) and the ratio of their medians."""
    result: Report = {}
    for name, (ours, below) in measured.items():
        here, floor = figures(ours), figures(below) if below else None
        ratio = here["median"] / floor["median"] if floor else None
        result[name] = {"ours": here, "floor": floor, "ratio": ratio}
    return result


def show(result: Report) -> None:
    table = Table("case", "runs", "median ms", "p95", "least", "floor ms", "p95", "ratio")
    for name, row in result.items():
        ours = [f"{row['ours'][key]:.2f}" for key in ("median", "p95", "least")]
        floor = [f"{row['floor'][key]:.2f}" for key in ("median", "p95")] if row["floor"] else []
        table.add_row(name, str(row["ours"]["runs"]), *ours, *floor, _ratio(row))
    Console(width=120).print(table)


def markdown(result: Report) -> str:
    """The same table for a document."""
    rows = ["| case | median ms | p95 | floor ms | ratio |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, row in result.items():
        floor = f"{row['floor']['median']:.2f}" if row["floor"] else ""
        ours = row["ours"]
        rows.append(
            f"| {name} | {ours['median']:.2f} | {ours['p95']:.2f} | {floor} | {_ratio(row)} |"
        )
    return "\n".join([*rows, ""])


def compare(before: Report, after: Report) -> None:
    """Two runs; the ratios to the floor too, as the machine may have been busier in one."""
    table = Table("case", "before ms", "after ms", "after/before", "before ratio", "after ratio")
    for name in [name for name in before if name in after]:
        rows = before[name], after[name]
        a, b = (row["ours"]["median"] for row in rows)
        table.add_row(name, f"{a:.2f}", f"{b:.2f}", f"{b / a:.2f}", *map(_ratio, rows))
    Console(width=120).print(table)


def _ratio(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.2f}" if row["ratio"] else ""
