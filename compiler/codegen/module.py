"""Kernels become one readable Python file with a map from its lines to the `.rec` file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ..ir.program import Program
from ..lower.kernel_ir import INTEGERS, Kernel
from .triton import Line, blocks
from .triton_math import HELPERS

_MARKER = re.compile(r"^( *)@@(\w+)$")


@dataclass(frozen=True)
class Generated:
    """The text of a module and its line map as JSON (see ``line_map``)."""

    text: str
    line_map: str


def triton_module(program: Program, kernels: Iterable[Kernel]) -> Generated:
    """A Triton module: the helpers that are used, then the kernels. The same kernels give the same bytes."""
    kernels = tuple(kernels)
    used = {s.op for k in kernels for statements in k.sections.values() for s in statements}
    lines = [Line(f'"""Kernels of the recurrence {program.name}."""'), Line(""), Line("import triton")]
    lines += [Line("import triton.language as tl"), Line(""), Line("")]
    helpers = _template("helpers").render(functions=used & HELPERS)
    lines += [Line(text) for text in helpers.strip().splitlines()]
    for kernel in kernels:
        lines += [*([Line(""), Line("")] if lines[-1].text else []), *_filled(kernel)]
    return Generated("\n".join(line.text for line in lines) + "\n", _line_map(program, lines))


def _filled(kernel: Kernel) -> list[Line]:
    """The kernel's template with every marker line replaced by its block, at the marker's column."""
    printed = blocks(kernel)
    text = _template(kernel.template).render(name=kernel.name, integers=list(INTEGERS), **kernel.facts)
    result: list[Line] = []
    for row in text.rstrip().splitlines():
        marker = _MARKER.match(row)
        if marker is None:
            result.append(Line(row))
        else:
            result += [Line(marker[1] + line.text, line.span) for line in printed[marker[2]]]
    return result


def _template(name: str) -> Any:
    import jinja2  # late: checking a file needs no templates

    folder = resources.files("recurra.codegen_templates") / "triton"
    text = (folder / f"{name}.py.jinja").read_text()
    return jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    ).from_string(text)


def _line_map(program: Program, lines: list[Line]) -> str:
    """``{"source": name, "lines": {"12": [22, 3, "S' = ..."]}}``: line and column are one-based."""
    source = program.source
    found = {}
    for number, line in enumerate(lines, 1):
        if line.span is not None:
            row, column = source.position(line.span.start)
            found[str(number)] = [row, column, source.text[line.span.start : line.span.end].split("\n")[0]]
    return json.dumps({"source": source.name, "lines": found})
