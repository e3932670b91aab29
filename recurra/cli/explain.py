"""``recurra explain``: an error code, or what the compiler found out about a recurrence."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from . import specs


def explain(
    subject: Annotated[str, typer.Argument(metavar="CODE|FILE", help="An error code such as E0207, or a .rec file.")],
    size: specs.Sizes = None,
    device: Annotated[str, typer.Option(help="Decide for this device, such as cuda; default: the best here.")] = "",
    const: specs.Consts = None,
    as_json: specs.AsJson = False,
) -> None:
    """Explain an error code or a recurrence.

    Of a recurrence: its class, the strategies, the backend, and why.
    """
    if re.fullmatch(r"[Ee]\d+", subject):
        _explain_code(subject, as_json)
        return
    problems = specs.Problems()
    consts, sizes = specs.parse_numbers(const, "--const"), specs.parse_numbers(size, "--size")
    with problems.caught(subject):
        source = specs.read(subject)
        from ..runtime.recurrence import Recurrence

        explanation = Recurrence(source, consts).explain(device or None, **sizes)
        if as_json:
            specs.print_json(explanation.data)
        else:
            print(explanation)
    if problems and as_json:
        specs.print_json({"errors": problems.as_data()})
    elif problems:
        problems.show()
    problems.finish()


def _explain_code(code: str, as_json: bool) -> None:
    from ..dsl.codes import BY_CODE, explain

    try:
        text = explain(code)
    except KeyError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        entry = BY_CODE[text[:5]]
        data = {"code": entry.code, "title": entry.title, "explanation": entry.explanation}
        specs.print_json({**data, "wrong": entry.wrong, "right": entry.right})
    else:
        print(text, end="")
