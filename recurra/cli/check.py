"""``recurra check``: all mistakes of `.rec` files."""

from __future__ import annotations

from . import specs


def check(
    files: specs.Files,
    const: specs.Consts = None,
    as_json: specs.AsJson = False,
) -> None:
    """Find all mistakes in .rec files.

    Exit code 1 if there are any.
    """
    from ..compiler.options import Options
    from ..compiler.pipeline import compile_source

    options = Options(consts=tuple(specs.parse_numbers(const, "--const").items()))
    problems = specs.Problems()
    names = specs.expand(files, problems)
    for name in names:
        with problems.caught(name):
            compile_source(specs.read(name), options)
    if as_json:
        specs.print_json({"files": len(names), "errors": problems.as_data()})
    else:
        problems.show()
        summary = specs.plural(problems.count, "error") if problems else "no errors"
        print(f"{specs.plural(len(names), 'file')} checked: {summary}")
    problems.finish()
