"""The registry of every error code of the language, one file per family.

``E01xx`` syntax, ``E02xx`` names, shapes and types, ``E03xx`` ranges and properties, ``E04xx`` transitions and
well-formedness, ``E05xx`` the layer block. A new code is one more ``Code`` in its family's tuple, plus a
fixture that provokes it under ``tests/fixtures/invalid``.
"""

from __future__ import annotations

from textwrap import indent, wrap

from ..suggest import closest
from .code import Code
from .layer import LAYER
from .names import NAMES
from .ranges import RANGES
from .syntax import SYNTAX
from .transitions import TRANSITIONS

CODES: tuple[Code, ...] = (*SYNTAX, *NAMES, *RANGES, *TRANSITIONS, *LAYER)
BY_CODE: dict[str, Code] = {entry.code: entry for entry in CODES}

__all__ = ["BY_CODE", "CODES", "Code", "explain"]


def explain(code: str) -> str:
    """The text that ``recurra explain E0207`` prints.

    Letter case and leading zeros are free: ``e207`` means ``E0207``. Raises KeyError, with a suggestion, for a
    code that is not registered.
    """
    wanted = code.strip().upper()
    digits = wanted.removeprefix("E")
    if digits.isdigit() and digits.isascii():
        wanted = "E" + digits.zfill(4)
    entry = BY_CODE.get(wanted)
    if entry is None:
        near = closest(wanted, BY_CODE)
        raise KeyError(f"no error code {code!r}" + (f"; did you mean {near}?" if near else ""))
    lines = [f"{entry.code}: {entry.title}", ""]
    lines += wrap(" ".join(entry.explanation.split()), 88)
    lines += ["", "wrong:", indent(entry.wrong.strip("\n"), "    ")]
    lines += ["", "right:", indent(entry.right.strip("\n"), "    ")]
    return "\n".join(lines) + "\n"
