"""``recurra bench``: how fast a recurrence runs, side by side with other ways to run it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..dsl.suggest import closest
from . import specs

if TYPE_CHECKING:
    from ..runtime.bench import Benchmark
    from ..runtime.recurrence import Recurrence

DTYPES = ("float32", "float64", "bfloat16", "float16")


def bench(
    files: specs.Files,
    shape: Annotated[
        str, typer.Option(metavar="B=2,T=1024,...", help="Sequences B, steps T, heads H, and dimensions (64 each).")
    ] = "",
    against: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="What to compare with: eager (a PyTorch loop), compile (its step under torch.compile), compile:16 (16 "
            "steps at a time), a backend, or module:function (your own, called with the tensors by name).",
        ),
    ] = "eager",
    backend: Annotated[str, typer.Option(help="What runs the recurrence itself.")] = "auto",
    dtype: Annotated[str, typer.Option(help=f"The inputs': {', '.join(DTYPES)}.")] = "float32",
    device: Annotated[str, typer.Option(help="Such as cuda; default: a GPU if there is one.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds: each runs everything once, in a random order.")] = 10,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write everything that was measured.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the medians.")] = None,
    const: specs.Consts = None,
    as_json: specs.AsJson = False,
) -> None:
    """Time a recurrence against other ways to run it.

    Forward, and forward + backward, beside the least time that bytes and operations need on this machine.
    """
    sizes = specs.parse_numbers([item for item in shape.split(",") if item.strip()], "--shape")
    consts = specs.parse_numbers(const, "--const")
    if dtype not in DTYPES:
        raise _wrong("dtype", dtype, DTYPES, "--dtype")
    if plot is not None and find_spec("matplotlib") is None:
        raise typer.BadParameter("drawing needs matplotlib: pip install matplotlib", param_hint="--plot")
    problems = specs.Problems()
    recurrences = _loaded(specs.expand(files, problems), consts, problems)
    opponents = [name.strip() for name in against.split(",") if name.strip()]
    _check_names(opponents, backend, sizes, recurrences)
    data, measured = _measured(recurrences, sizes, opponents, backend, dtype, device, repeats, problems, as_json)
    if out is not None and data:
        from ..runtime.bench.record import write

        with problems.caught(str(out)):
            write(out, data)
    if plot is not None and measured:
        from ..runtime.bench.plot import plot as draw

        with problems.caught(str(plot)):
            draw(measured, plot)
    if as_json:
        specs.print_json({**data, "errors": problems.as_data()})
    else:
        problems.show()
        _print(measured, data)
    problems.finish()
    if any(benchmark.failed for benchmark in measured):
        raise typer.Exit(1)


def _loaded(names: Sequence[str], consts: Mapping[str, int], problems: specs.Problems) -> dict[str, Recurrence]:
    """Recurrences by file, those without mistakes."""
    from ..runtime.recurrence import Recurrence

    found = {}
    for name in names:
        with problems.caught(name):
            found[name] = Recurrence(specs.read(name), consts)
    return found


def _check_names(
    opponents: Sequence[str], backend: str, sizes: Mapping[str, int], recurrences: Mapping[str, Recurrence]
) -> None:
    """Wrong usage for names that nothing has."""
    from ..runtime.bench.contenders import backend_names, check_against
    from ..runtime.bench.shape import check_names

    if backend not in backend_names():
        raise _wrong("backend", backend, backend_names(), "--backend")
    try:
        option = "--against"
        for name in opponents:
            check_against(name)
        option = "--shape"
        if recurrences:
            check_names(sizes, recurrences.values())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _wrong(noun: str, name: str, known: Sequence[str], option: str) -> typer.BadParameter:
    guess = closest(name, known)
    hint = f"did you mean {guess}?" if guess else f"there are {', '.join(known)}"
    return typer.BadParameter(f"no {noun} {name!r}; {hint}", param_hint=option)


def _measured(
    recurrences: Mapping[str, Recurrence],
    sizes: Mapping[str, int],
    opponents: Sequence[str],
    backend: str,
    dtype: str,
    device: str,
    repeats: int,
    problems: specs.Problems,
    quiet: bool,
) -> tuple[dict[str, Any], list[Benchmark]]:
    """Everything measured, as the document that is written and as benchmarks."""
    if not recurrences:
        return {}, []
    import torch

    from ..runtime.bench import bench, shape_of
    from ..runtime.bench.machine import load
    from ..runtime.bench.record import document
    from ..runtime.errors import BackendError

    before = load()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    options = {"against": opponents, "backend": backend, "dtype": getattr(torch, dtype), "repeats": repeats}
    measured = []
    runs = 2 * (1 + len(opponents)) * (1 + repeats)
    with specs.progress(runs * len(recurrences), "bench", quiet) as advance:
        for name, recurrence in recurrences.items():
            with problems.caught(name):
                try:
                    shape = shape_of(recurrence, sizes)
                    measured.append(bench(recurrence, shape, device=place, before=advance, **options))
                except BackendError as error:
                    raise ValueError(str(error)) from error
    return document(measured, place, before), measured


def _print(measured: Sequence[Benchmark], data: Mapping[str, Any]) -> None:
    """One table, then what to know about it."""
    from rich.console import Console

    from ..runtime.bench import table
    from ..runtime.bench.machine import busy

    if not measured:
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(measured))
    for benchmark in measured:
        console.print(
            f"{benchmark.spec}: {benchmark.setting()}; here {benchmark.ceilings}", highlight=False, markup=False
        )
        for note in benchmark.notes:
            console.print(f"  {note}", highlight=False, markup=False)
        for name, reason in benchmark.failed.items():
            console.print(f"  {name} could not be measured: {reason}", highlight=False, markup=False)
    warning = busy(data["load_before"])
    if warning:
        console.print(warning, highlight=False, markup=False)
