"""The text of generated C++: the same for the same spec, with a map to its lines, and one kernel whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.kernels.against_reference import UNSEEN, ZOO, sizes_of, spec, zoo

from recurra.compiler.codegen.module import Generated
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.options import KernelOptions

SPECS = pytest.mark.parametrize("path", [*ZOO, *UNSEEN], ids=lambda path: path.stem)


def generated(path: Path) -> Generated:
    program = spec(path.read_text(encoding="utf-8"), path.name)
    return compile_kernels(program, sizes_of(program, 20, 12), KernelOptions(), backend="cpu").generated


@SPECS
def test_same_spec_same_bytes(path: Path) -> None:
    made = generated(path)
    assert generated(path) == made
    assert str(path.parent) not in "".join(made.files.values())


@SPECS
def test_line_map(path: Path) -> None:
    """Mapped lines lead to the text of the spec that they were made from."""
    made = generated(path)
    found = json.loads(made.files[f"{made.main}.map.json"])
    lines, written = made.text.splitlines(), path.read_text(encoding="utf-8").splitlines()
    assert found["source"] == path.name and len(found["lines"]) > 5
    for number, (row, column, text) in found["lines"].items():
        assert lines[int(number) - 1].strip().endswith(";")
        assert text and written[row - 1][column - 1 :].startswith(text)


# ---------------------------------------------------------------- a golden


def function(text: str, name: str) -> str:
    """One kernel of a file: its memory and its function."""
    begin = text.index(f"struct {name}_room {{")
    end = text.index("\n}\n", text.index(f"int {name}(", begin)) + len("\n}\n")
    return text[begin:end]


def test_a_whole_kernel(golden: Callable[[str, str], None]) -> None:
    made = compile_kernels(zoo("elman"), {"D": 16}, KernelOptions(), backend="cpu")
    golden("elman_infer.cpp.golden", function(made.generated.text, "elman_infer"))
