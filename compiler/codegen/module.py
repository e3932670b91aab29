"""Kernels become readable source files with a map from their lines to the `.rec` file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ..ir.program import Program
from ..lower.kernel_ir import Kernel
from .cpp import cpp_blocks
from .lines import Line
from .triton import blocks
from .triton_math import HELPERS

HEADERS = ("vector.hpp", "mathematics.hpp", "numbers.hpp", "parallel.hpp")
"""What generated C++ includes."""

CHUNK_HELPERS = (
    "bounded",
    "whole_and_part",
    "parity",
    "apart",
    "border",
    "block_start",
    "sum_before",
    "sum_after",
    "interleave_rows",
    "even_odd",
    "unit_lower_inverse",
    "product",
    "product_onto",
)
"""Functions of the helpers template that chunk kernels call."""

_MARKER = re.compile(r"^( *)@@(\w+)$")


@dataclass(frozen=True)
class Generated:
    """Source files by name: ``main`` is the one with the kernels, beside it stands its line map as JSON."""

    main: str
    files: Mapping[str, str]

    @property
    def text(self) -> str:
        """The file with the kernels."""
        return self.files[self.main]


def triton_module(program: Program, kernels: Iterable[Kernel]) -> Generated:
    """A Triton module: the helpers that are used, then the kernels. The same kernels give the same bytes."""
    kernels = tuple(kernels)
    printed = [
        _filled(f"triton/{kernel.template}.py", kernel, blocks(kernel), integers=lengths(kernel)) for kernel in kernels
    ]
    used = {s.op for k in kernels for statements in k.sections.values() for s in statements} & HELPERS
    used |= {name for name in CHUNK_HELPERS if any(f"_{name}(" in line.text for body in printed for line in body)}
    lines = [Line(f'"""Kernels of the recurrence {program.name}."""'), Line(""), Line("import triton")]
    lines += [Line("import triton.language as tl"), Line(""), Line("")]
    helpers = _template("triton/helpers.py").render(functions=used, packed=any(k.packed for k in kernels))
    lines += [Line(text) for text in helpers.strip().splitlines()]
    for body in printed:
        lines += [Line(""), Line("")] if lines[-1].text else []
        lines += body
    return _generated(program, "kernels.py", lines)


def lengths(kernel: Kernel) -> list[str]:
    """Arguments on whose values Triton must not specialise a kernel."""
    return [name for name in kernel.integers if name != "direction"]


def cpp_module(program: Program, kernels: Iterable[Kernel]) -> Generated:
    """A C++ file and the headers that it includes. The same kernels give the same bytes."""
    lines = [Line(f"// Kernels of the recurrence {program.name}.")]
    lines += [Line(text) for text in _read("cpu/kernels.cpp").splitlines()]
    for kernel in kernels:
        lines += [Line(""), *_filled(f"cpu/{kernel.template}.cpp", kernel, cpp_blocks(kernel))]
    return _generated(program, "kernels.cpp", lines, {name: _read(f"cpu/{name}") for name in HEADERS})


def _filled(template: str, kernel: Kernel, printed: Mapping[str, list[Line]], **more: Any) -> list[Line]:
    """The kernel's template with every marker line replaced by its block, at the marker's column."""
    ragged = kernel.packed and kernel.layout.sequences > 1
    text = _template(template).render(name=kernel.name, packed=kernel.packed, ragged=ragged, **more, **kernel.facts)
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

    return jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    ).from_string(_read(f"{name}.jinja"))


def _read(name: str) -> str:
    return (resources.files("recurra.codegen_templates") / name).read_text()


def _generated(program: Program, main: str, lines: list[Line], more: Mapping[str, str] | None = None) -> Generated:
    text = "\n".join(line.text for line in lines) + "\n"
    return Generated(main, {main: text, f"{main}.map.json": _line_map(program, lines), **(more or {})})


def _line_map(program: Program, lines: list[Line]) -> str:
    """``{"source": name, "lines": {"12": [22, 3, "S' = ..."]}}``: line and column are one-based."""
    source = program.source
    found = {}
    for number, line in enumerate(lines, 1):
        if line.span is not None:
            row, column = source.position(line.span.start)
            found[str(number)] = [row, column, source.text[line.span.start : line.span.end].split("\n")[0]]
    return json.dumps({"source": source.name, "lines": found})
