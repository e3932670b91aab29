"""Every recurrence of the zoo: SymPy = float64 reference = Triton and native kernels, forward and every gradient."""

from __future__ import annotations

from pathlib import Path

import pytest

from recurra.compiler.frontend.elaborate import elaborate
from recurra.dsl.parser import parse
from recurra.dsl.source import Source
from recurra.runtime import chunked
from recurra.runtime.verify import verify

ZOO = Path(__file__).parents[2] / "examples" / "zoo"
SPECS = sorted(ZOO.glob("*.rec"))


@pytest.mark.parametrize("path", SPECS, ids=[path.stem for path in SPECS])
def test_verified(path: Path) -> None:
    program = elaborate(parse(Source(path.name, path.read_text(encoding="utf-8"))))
    report = verify(program)
    assert report.ok, str(report)
    chunks = ["reference:chunk"] if chunked.refuses(program) is None else []
    kinds = ("", ", packed") if program.inputs else ("",)
    assert {(row.check, row.dtype) for row in report.rows if row.dtype != "exact"} == {
        ("sympy = reference", "float64"),
        *((f"reference = triton{kind}", "float32") for kind in kinds),
        *(
            (f"reference = {name}{kind}", dtype)
            for name in ("cpu", *chunks)
            for kind in kinds
            for dtype in ("float32", "float64", "bfloat16")
        ),
    }
    missing = ("triton",) if chunks else ("triton", "reference:chunk")
    assert all(note.startswith(tuple(f"backend {name} is not compared: " for name in missing)) for note in report.notes)
