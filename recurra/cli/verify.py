"""``recurra verify``: every backend against the exact reference."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from . import specs

if TYPE_CHECKING:
    from ..runtime.verify import Report


def verify(
    files: specs.Files,
    const: specs.Consts = None,
    as_json: specs.AsJson = False,
) -> None:
    """Compare every backend with the exact reference.

    SymPy = float64 reference = generated kernels, forward and every gradient; exit code 1 where they differ.
    """
    from ..runtime.recurrence import Recurrence

    problems = specs.Problems()
    consts = specs.parse_numbers(const, "--const")
    names = specs.expand(files, problems)
    reports: list[Report] = []
    with specs.progress(len(names), "verify", quiet=as_json) as advance:
        for name in names:
            advance(name)
            with problems.caught(name):
                reports.append(Recurrence(specs.read(name), consts).verify())
    failed = [report.spec for report in reports if not report.ok]
    if as_json:
        specs.print_json({"reports": [report.as_data() for report in reports], "errors": problems.as_data()})
    else:
        problems.show()
        if reports:
            _print(reports)
        passed = len(reports) - len(failed)
        print(f"{specs.plural(passed, 'recurrence')} verified" + (f", failed: {', '.join(failed)}" if failed else ""))
    problems.finish()
    if failed:
        raise typer.Exit(1)


def _print(reports: list[Report]) -> None:
    """One table of everything, then what was not compared."""
    from rich.console import Console

    from ..runtime.verify import table

    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(reports))
    for report in reports:
        for note in report.notes:
            console.print(f"{report.spec}: {note}", highlight=False, markup=False)
