"""Benchmarks as horizontal bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .results import Benchmark, Row
from .table import show_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, SUBJECT, OTHERS = "#1f2430", "#8a90a0", "#2563eb", "#c3c9d6"
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
WIDE = 20
"""The ratio of the longest to the shortest bar from which the axis is logarithmic."""


def plot(benchmarks: Sequence[Benchmark], path: Path) -> None:
    """Write a picture of all medians (its format by the suffix): a row of panels per benchmark, a panel per direction.

    Dashed lines are the floors. ImportError where matplotlib is missing.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = max(len(benchmark.floors) for benchmark in benchmarks)
    heights = [1.0 + 0.34 * len(benchmark.rows) / len(benchmark.floors) for benchmark in benchmarks]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(benchmarks),
            columns,
            figsize=(6.4 * columns, sum(heights) + 0.3),
            height_ratios=heights,
            squeeze=False,
            layout="constrained",
        )
        for benchmark, line in zip(benchmarks, panels, strict=True):
            for axes, direction in zip(line, benchmark.floors, strict=False):
                axes.set_title(f"{benchmark.spec}, {direction}", fontweight="bold")
                _bars(axes, benchmark, [row for row in benchmark.rows if row.direction == direction])
            for axes in line[len(benchmark.floors) :]:
                axes.axis("off")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _bars(axes: Axes, benchmark: Benchmark, rows: Sequence[Row]) -> None:
    times = [row.samples.median * 1e3 for row in rows]
    colours = [SUBJECT if row.name == benchmark.subject else OTHERS for row in rows]
    axes.barh([row.name for row in rows], times, color=colours, height=0.7)
    axes.invert_yaxis()
    axes.tick_params(left=False)
    axes.set_xlabel(f"milliseconds  ({benchmark.setting()})", fontsize=9)
    least_bytes, least_operations = (s * 1e3 for s in benchmark.floors[rows[0].direction].seconds(benchmark.ceilings))
    floor = max(least_bytes, least_operations)
    if max(times) > WIDE * min(times):
        axes.set_xscale("log")
        low = min(*times, floor or times[0]) / 2
        axes.set_xlim(low, max(times) * (max(times) / low) ** 0.3)  # figures stand beside their bars
        axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
    else:
        axes.set_xlim(0, max(times) * 1.35)
    if floor:
        bound = "bytes" if least_bytes >= least_operations else "operations"
        axes.axvline(floor, color=INK, linewidth=1, linestyle="--")
        note = f"dashed: floor of {bound}, {show_seconds(floor / 1e3)}"
        axes.annotate(note, (1, 0.02), xycoords="axes fraction", ha="right", va="bottom", fontsize=8, color=MUTED)
    for position, (row, time) in enumerate(zip(rows, times, strict=True)):
        text = show_seconds(row.samples.median)
        if row.name != benchmark.subject:
            text += f"  ({row.ratio:.3g}x)"
        axes.annotate(text, (time, position), (4, 0), textcoords="offset points", va="center", fontsize=9)
