"""Benchmarks as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .results import Benchmark, Row

CAPTION = "/ bytes, / ops: the median over the least time that bytes and operations need here"


def table(benchmarks: Sequence[Benchmark]) -> Any:
    """All benchmarks as one table of rich: a section for each spec and direction, the subject first."""
    from rich.table import Table

    result = Table("", caption=CAPTION, caption_justify="left")
    for heading in ("median", "minimum", "ratio", "/ bytes", "/ ops"):
        result.add_column(heading, justify="right")
    for benchmark in benchmarks:
        for direction in benchmark.floors:
            result.add_row(f"[bold]{benchmark.spec}, {direction}[/bold]")
            for row in benchmark.rows:
                if row.direction == direction:
                    style = "bold" if row.name == benchmark.subject else None
                    result.add_row(f"  {row.name}", *numbers(row), style=style)
            result.add_section()
    return result


def numbers(row: Row) -> tuple[str, str, str, str, str]:
    """Median, minimum, ratio to the subject, and times over the floors, as text."""
    over = (_times(row.bytes_ratio), _times(row.operations_ratio))
    return (show_seconds(row.samples.median), show_seconds(row.samples.minimum), f"{row.ratio:.2f}x", *over)


def show_seconds(seconds: float) -> str:
    """A time with three digits and its unit."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:#.3g}".rstrip(".") + f" {unit}"
    return f"{seconds * 1e6:#.3g}".rstrip(".") + " us"


def _times(ratio: float) -> str:
    return f"{ratio:#.3g}".rstrip(".") + "x" if ratio < 1000 else f"{ratio:.0f}x"
