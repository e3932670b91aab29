"""``recurra verify``: every backend against the exact reference."""

from __future__ import annotations

from typing import Any

from . import specs


def verify(
    files: specs.Files,
    const: specs.Consts = None,
    as_json: specs.AsJson = False,
) -> None:
    """Compare SymPy, the float64 reference and generated kernels, forward and every gradient."""
    from ..runtime.recurrence import Recurrence

    problems = specs.Problems()
    consts = specs.parse_numbers(const, "--const")
    names = specs.expand(files, problems)
    reports: list[Any] = []
    with specs.progress(len(names), "verify", quiet=as_json) as advance:
        for name in names:
            advance(name)
            with problems.caught(name):
                reports.append(Recurrence(specs.read(name), consts).verify())
    if as_json:
        specs.print_json({"reports": [report.as_data() for report in reports], "errors": problems.as_data()})
    else:
        problems.show()
        for report in reports:
            print(report)
    problems.finish()
