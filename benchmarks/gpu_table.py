"""What the GPU benchmark found, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recurra.runtime.bench.table import show_seconds

Row = Mapping[str, Any]
DIRECTIONS = ("forward", "forward + backward")
DIFFERS = 2e-2
"""Outputs of two implementations in bfloat16 that are further apart than this are not the same work."""


def markdown(data: Mapping[str, Any]) -> str:
    """Everything: the machine, times, what went wrong."""
    lines = [
        "# Recurra on a GPU",
        "",
        "Written by `python benchmarks/gpu.py`: bfloat16, [batch, time, heads, size] with K = V, medians of",
        "interleaved repeats by the device's clock, caches flushed before each. Everything is in `gpu.json`.",
        "",
        *circumstances(data),
        "",
        *times(data),
        "",
        *checks(data),
    ]
    return "\n".join(lines) + "\n"


def circumstances(data: Mapping[str, Any]) -> Iterator[str]:
    """Card, versions, date, ceilings."""
    device = data["device"]
    if "failed" in device or not device:
        yield f"The device could not be described: {device.get('failed', 'nothing came back')}."
        return
    used = ", ".join(f"{name} {version}" for name, version in device["versions"].items() if version)
    missing = "" if device["versions"].get("flash-linear-attention") else "; flash-linear-attention is not installed"
    card = device["machine"].get("device", device["machine"]["cpu"])
    copies, products = (device["ceilings"][f"{what}_per_second"] / 1e12 for what in ("bytes", "operations"))
    yield (
        f"{card}; copies {copies:.2f} TB/s, products {products:.0f} TFLOP/s (measured); {used}{missing}; "
        f"{data['date']}, commit {data['commit']}, {data.get('seconds', 0):.0f} s."
    )


# ---------------------------------------------------------------- times


def times(data: Mapping[str, Any]) -> Iterator[str]:
    """One table with a row for each piece of work, way and direction."""
    yield "## Times"
    yield ""
    yield (
        "`/ floor` is the time over the least time for the bytes of arguments and results, `/ own` over the kernels'"
        " own bytes, `/ ops` over the operations of the recurrence as it is written (chunks do more), all at what the"
        " card does at most. `fla` is flash-linear-attention on the same inputs with gates prepared outside;"
        " `fla / ours` above 1 means that ours is faster; it is empty where fla had not chosen its configurations in"
        " time (which it did while other processes used the card). `g` columns replay the same from a CUDA graph."
    )
    yield ""
    columns = ["ours", "/ floor", "/ own", "/ ops", "fla", "fla / ours", "ours g", "fla g", "fla / ours g"]
    yield f"| work | shape | way | direction | {' | '.join(columns)} |"
    yield "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    notes: list[str] = []
    for row in data["times"]:
        name = _named(row)
        if "failed" in row:
            yield f"| {row['spec']} | {_shape(row)} | {row['way']} | | {row['failed']} | | | | | | | | |"
            continue
        yield from _directions(row, data["device"].get("ceilings"))
        notes += [f"{name}: {note}" for note in _notes(row)]
    left = data["unreached"].get("times", [])
    if left:
        yield ""
        yield f"Not reached in time: {', '.join(map(_named, left))}."
    if notes:
        yield ""
        yield from (f"* {note}" for note in notes)


def _directions(row: Row, ceilings: Mapping[str, float] | None) -> Iterator[str]:
    medians = {(t["name"], t["direction"], t["mode"]): t["median"] for t in row["times"]}
    ways = row["launches"]["way"] or "mixed"
    way = ways if row["way"] == "auto" else f"{ways} (not chosen)"
    for direction in DIRECTIONS:
        cells: list[str] = []
        for mode in ("eager", "graph"):
            ours, theirs = (medians.get((name, direction, mode)) for name in ("recurra", "fla"))
            cells.append(_seconds(ours))
            if mode == "eager":
                cells += _over(row, direction, ours, ceilings)
            cells += [_seconds(theirs), f"{theirs / ours:.2f}" if ours and theirs else ""]
        yield f"| {row['spec']} | {_shape(row)} | {way} | {direction} | {' | '.join(cells)} |"


def _over(row: Row, direction: str, seconds: float | None, ceilings: Mapping[str, float] | None) -> list[str]:
    if seconds is None or ceilings is None:
        return ["", "", ""]
    floor, own = row["floors"][direction], row["launches"]["bytes"].get(direction)
    least = [floor["bytes"] / ceilings["bytes_per_second"]]
    least += [own / ceilings["bytes_per_second"]] if own else [0.0]
    least += [floor["operations"] / ceilings["operations_per_second"]]
    return [f"{seconds / bound:.2f}" if bound else "" for bound in least]


def _notes(row: Row) -> Iterator[str]:
    if isinstance(row["peer"], str):
        yield f"fla cannot be measured: {row['peer']}"
    difference = float(row.get("difference", 0))
    if not difference <= DIFFERS:
        yield f"outputs of fla differ by {difference:.1e}, so this may not be the same work"
    yield from row["notes"]


def _shape(row: Row) -> str:
    return f"B{row['B']} T{row['T']} H{row['H']} D{row['D']}"


def _named(job: Row) -> str:
    return f"{job['spec']} {_shape(job)} {job['way']}"


def _seconds(value: float | None) -> str:
    return "" if value is None else show_seconds(value)


# ---------------------------------------------------------------- checks


def checks(data: Mapping[str, Any]) -> Iterator[str]:
    """How many agree, and a table of those that do not."""
    rows = [row for row in data["checks"] if row["kind"] == "check" and "refused" not in row]
    bad = [row for row in rows if _wrong(row)]
    left = [job for job in data["unreached"].get("checks", []) if job["kind"] == "check"]
    yield "## Agreement with the float64 reference"
    yield ""
    yield (
        f"{len(rows) - len(bad)} of {len(rows)} checks agree, forward and every gradient, and are bit-identical twice"
        f"{f'; {len(left)} were not reached in time' if left else ''}. A check is one recurrence of the zoo, one way,"
        " in one type, at one shape."
    )
    yield from (f"{line}" for line in _table(bad))
    first = [row for row in (*data["checks"], *data["tunes"]) if row["kind"] != "check" and "failed" in row]
    if first:
        yield ""
        yield "First runs of what is timed that failed (`tune`: of fla):"
        yield ""
        for row in first:
            yield f"* {row['kind']} {_named(row)}: {row['failed']}"


def _wrong(row: Row) -> bool:
    return bool("failed" in row or row["wrong"] or row["moving"])


def _table(bad: Sequence[Row]) -> Iterator[str]:
    if not bad:
        return
    yield ""
    yield "| recurrence | way | type | sizes | what is wrong |"
    yield "|---|---|---|---|---|"
    for row in bad:
        shape = f"B{row['B']} T{row['T']} H{row['H']} {'x'.join(map(str, row['sizes']))}"
        words = [row["failed"]] if "failed" in row else []
        words += [
            f"{name} {float(error):.1e} (allowed {most:.1e})" for name, (error, most) in row.get("wrong", {}).items()
        ]
        words += [f"two runs differ in {', '.join(row['moving'])}"] if row.get("moving") else []
        yield f"| {row['spec']} | {row['way']} | {row['dtype']} | {shape} | {'; '.join(words).replace('|', '/')} |"
