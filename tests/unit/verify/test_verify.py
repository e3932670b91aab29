"""Verification finds what is wrong, and passes what is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import HERE, K, V, programs
from hypothesis import given, settings
from torch import Tensor

import recurra
from recurra.compiler.analysis.affine import AffineForm, affine_form
from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.program import Dim, Gate, Initialiser, Input, Output, Param, Program, State
from recurra.compiler.ir.size import Size
from recurra.compiler.ir.types import EVERYTHING, Axis, Interval
from recurra.dsl.source import Source
from recurra.runtime import reference
from recurra.runtime.verify import Report, Row, verify
from recurra.runtime.verify.data import draw, fitting_sizes
from recurra.runtime.verify.exact import exact_steps

Result = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


def memory(clip: bool = False) -> Program:
    """S' = a S + k v^T, o = k S'; a in (0, 1], k of norm 1, scale is frozen."""
    b = Builder()
    S, a = b.leaf("state", "S", (K, V)), b.leaf("input", "a")
    k, v = b.leaf("input", "k", (K,)), b.leaf("input", "v", (V,))
    w, scale = b.leaf("param", "w", (V,)), b.leaf("param", "scale")
    write = b.contract(k, b.mul(v, w), (0,), (1,), (0, 1))
    new = b.add(b.mul(a, S), write)
    if clip:
        new = b.emit("clip_grad", (new,), (0.5,), (K, V))
    out = b.mul(scale, b.contract(k, new, (0,), (0, 1), (1,)))
    return Program(
        "memory",
        "",
        (Dim("K", None, HERE), Dim("V", None, HERE)),
        (),
        (State("S", (K, V), b.const(0.0), new, HERE),),
        (
            Input("a", (), Interval(0.0, 1.0, low_open=True), False, HERE),
            Input("k", (K,), EVERYTHING, True, HERE),
            Input("v", (V,), EVERYTHING, False, HERE),
        ),
        (
            Param("w", (V,), Initialiser("ones"), False, HERE),
            Param("scale", (), Initialiser("ones"), True, HERE),
        ),
        (Gate("decay", a, None, HERE),),
        (Output("o", (V,), out, HERE),),
        tuple(b.body),
        None,
        Source("memory.rec", ""),
    )


def failing(report: Report, check: str) -> set[str]:
    return {row.quantity for row in report.rows if row.check == check and not row.ok}


def test_the_reference_agrees_with_itself() -> None:
    report = verify(memory(), backends={"same": reference.run}, dtypes=[torch.float32, torch.bfloat16])
    assert report.ok and not report.notes
    quantities = ["o", "final S", "d a", "d k", "d v", "d w", "d S"]
    by_check = {(row.check, row.dtype): [] for row in report.rows}  # type: dict[tuple[str, str], list[str]]
    for row in report.rows:
        by_check[row.check, row.dtype].append(row.quantity)
    assert by_check == {
        ("sympy = reference", "float64"): quantities,
        ("normal form = step", "exact"): ["S', o"],
        ("reference = same", "float32"): quantities,
        ("reference = same", "bfloat16"): quantities,
        ("reference = same, packed", "float32"): quantities,
        ("reference = same, packed", "bfloat16"): quantities,
    }
    tolerances = {row.quantity: row.tolerance for row in report.rows if row.dtype == "bfloat16"}
    assert (tolerances["o"], tolerances["d v"], tolerances["d a"]) == (5e-3, 8e-3, 2e-2)


@given(programs(kinks=True, size=5))
@settings(max_examples=5)
def test_drawn_programs_pass(drawn: Program) -> None:
    report = verify(drawn, backends={"same": reference.run})
    assert report.ok, str(report)


def spoiled(change: Callable[..., Result]) -> Callable[..., Result]:
    def run(*args: Any, **options: Any) -> Result:
        return change(reference.run(*args, **options), *args, **options)

    return run


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda r, *a, **o: ((r[0][0] * (1 + 5e-5),), r[1]), {"o"}),
        (lambda r, *a, **o: (r[0], (r[1][0].detach(),)), {"d a", "d k", "d v", "d w", "d S"}),
        (lambda r, *a, **o: (r[0], (r[1][0] + 1e-3,)), {"final S"}),
        (lambda r, *a, **o: ((r[0][0] * torch.nan,), r[1]), {"o", "d a", "d k", "d v", "d w", "d S"}),
        (
            lambda r, p, s, i, q, n, **o: ((r[0][0] + i["a"].mean() * 1e-2 - i["a"].detach().mean() * 1e-2,), r[1]),
            {"d a"},
        ),
    ],
)
def test_a_wrong_backend_is_found(change: Callable[..., Result], wrong: set[str]) -> None:
    report = verify(memory(), backends={"spoiled": spoiled(change)}, exact=False, dtypes=[torch.float32])
    assert not report.ok
    assert failing(report, "reference = spoiled") == wrong


def test_a_backend_that_forgets_the_direction_is_found() -> None:
    def run(*args: Any, steps: int, reverse: bool, cu_seqlens: Tensor | None) -> Result:
        return reference.run(*args, steps=steps, cu_seqlens=cu_seqlens)

    report = verify(memory(), backends={"forward": run}, exact=False)
    assert "o" in failing(report, "reference = forward")
    assert {row.case for row in report.rows if not row.ok} == {"B=1 T=7 grouped reverse"}


def test_a_backend_that_joins_packed_sequences_is_found() -> None:
    def run(*args: Any, steps: int, reverse: bool, cu_seqlens: Tensor | None) -> Result:
        if cu_seqlens is not None:
            cu_seqlens = torch.where(cu_seqlens == 3, 2, cu_seqlens)
        return reference.run(*args, steps=steps, reverse=reverse, cu_seqlens=cu_seqlens)

    report = verify(memory(), backends={"joined": run}, exact=False, dtypes=[torch.float32])
    assert {"o", "final S"} <= failing(report, "reference = joined, packed")
    assert not failing(report, "reference = joined")


def test_a_wrong_reference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reference.ELEMENTWISE, "mul", lambda x, y: x * y * (1 + 1e-9))
    report = verify(memory(), backends={})
    assert not report.ok and {row.check for row in report.rows if not row.ok} == {"sympy = reference"}


def test_a_wrong_normal_form_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(program: Program) -> AffineForm:
        form = affine_form(program)
        return replace(form, links=(replace(form.links[0], decay=None),))

    monkeypatch.setattr("recurra.compiler.forms.affine_form", wrong)
    report = verify(memory(), backends={})
    assert failing(report, "normal form = step") == {"S', o"}
    assert report.notes == ("memory: S'[0, 0] less its normal form is S[0, 0]*a - S[0, 0], not 0",)
    assert '"error": "inf"' in json.dumps(report.as_data())


def test_twice_the_error_of_the_same_precision_is_allowed() -> None:
    """Half precision of the *inputs* is shared; an answer rounded to it is no worse than the reference's."""

    def run(*args: Any, **options: Any) -> Result:
        outputs, final = reference.run(*args, **options)
        return outputs, tuple(x * (1 + 1e-6) for x in final)

    report = verify(memory(), backends={"near": run}, dtypes=[torch.float16], exact=False)
    assert report.ok, str(report)


def test_gradients_through_clip_grad_are_not_compared_with_sympy() -> None:
    report = verify(memory(clip=True), backends={"same": reference.run})
    assert report.ok
    assert report.notes == (
        "gradients are not compared with SymPy: memory uses clip_grad, "
        "whose gradient is not the derivative of what it computes",
    )
    assert [row.quantity for row in report.rows if row.check == "sympy = reference"] == ["o", "final S"]


def test_data_keep_promises() -> None:
    program = memory()
    generator = torch.Generator().manual_seed(3)
    drawn = draw(program, {"K": 3, "V": 5}, generator, batch=4, steps=20, heads=2, start=True, grouped=True)
    assert drawn.inputs["a"].shape == (4, 20, 1) and drawn.inputs["k"].shape == (4, 20, 2, 3)
    assert drawn.inputs["a"].min() > 0 and drawn.inputs["a"].max() <= 1
    torch.testing.assert_close(drawn.inputs["k"].norm(dim=-1), torch.ones(4, 20, 2, dtype=torch.float64))
    assert drawn.inputs["v"].min() < 0 < drawn.inputs["v"].max()
    assert drawn.params["w"].shape == (2, 5) and drawn.initial["S"].shape == (4, 2, 3, 5)
    leaves = drawn.to(torch.bfloat16, ["scale"])
    assert leaves.inputs["a"].dtype == torch.bfloat16 and leaves.params["w"].dtype == torch.float32
    assert leaves.params["w"].requires_grad and not leaves.params["scale"].requires_grad


@pytest.mark.parametrize(("low", "high"), [(2.0, float("inf")), (float("-inf"), -2.0)])
def test_half_open_promises(low: float, high: float) -> None:
    program = memory()
    promised = replace(program.inputs[0], range=Interval(low, high))
    program = replace(program, inputs=(promised, *program.inputs[1:]))
    drawn = draw(program, {"K": 3, "V": 5}, torch.Generator(), batch=4, steps=20, heads=2, start=False)
    assert low < drawn.inputs["a"].min() and drawn.inputs["a"].max() < high


def sliced() -> Program:
    """An axis that must have at least four entries: the last P = 2 and the first 4 are read."""
    M, U = Axis("M", Size.of("M")), Axis("U", Size.of("U"))
    b = Builder()
    z, u = b.leaf("state", "z", (M,)), b.leaf("input", "u", (U,))
    two, four = Axis("2", Size(2)), Axis("4", Size(4))
    tail = b.emit("slice", (z,), (0, Size.of("M") - Size(2), Size.of("M")), (two,))
    rest = b.emit("slice", (z,), (0, Size(0), Size.of("M") - Size(2)), (Axis("M - 2", Size.of("M") - Size(2)),))
    new = b.emit("concat", (rest, b.apply("relu", tail)), (0,), (M,))
    out = b.emit("slice", (new,), (0, Size(0), Size(4)), (four,))
    out = b.add(out, b.emit("index", (u,), (0, 2), ()))
    return Program(
        "sliced",
        "",
        (Dim("M", None, HERE), Dim("U", "M", HERE)),
        (),
        (State("z", (M,), b.const(0.0), new, HERE),),
        (Input("u", (U,), EVERYTHING, False, HERE),),
        (),
        (),
        (Output("o", (four,), out, HERE),),
        tuple(b.body),
        None,
        Source("sliced.rec", ""),
    )


def test_sizes_are_the_least_that_slices_allow() -> None:
    assert fitting_sizes(sliced(), [2]) == {"M": 4, "U": 4}
    assert fitting_sizes(sliced(), [2], {"M": 9}) == {"M": 9, "U": 9}
    assert fitting_sizes(memory(), [3, 5]) == {"K": 3, "V": 5}
    assert fitting_sizes(memory(), [], {"K": 2, "V": 7}) == {"K": 2, "V": 7}
    assert verify(sliced(), backends={"same": reference.run}).ok


def test_states_under_a_root_start_positive() -> None:
    program = memory()
    b = Builder(program.body)
    root = b.apply("sqrt", b.emit("index", (program.states[0].next,), (0, 0), (V,)))
    program = replace(program, body=tuple(b.body), outputs=(Output("o", (V,), root, HERE),))
    drawn = draw(program, {"K": 3, "V": 5}, torch.Generator(), batch=4, steps=2, heads=2, start=True)
    assert drawn.initial["S"].min() >= 0.25


def test_the_report_as_text_and_data() -> None:
    good = Row("memory", "reference = x", "float32", "o", "B=1 T=1", 1e-7, 1e-5, 0.01)
    bad = replace(good, quantity="d a", error=float("inf"), ratio=float("inf"))
    report = Report("memory", (good, bad), ("backend y is not compared: no reason [at all]",))
    assert not report.ok and Report("memory", (good,)).ok and not Report("memory", ()).ok
    data = json.loads(json.dumps(report.as_data(), allow_nan=False))
    assert [row["ok"] for row in data["rows"]] == [True, False] and data["rows"][1]["error"] == "inf"
    text = str(report)
    assert "FAIL" in text and "1.0e-07" in text and "memory: backend y is not compared: no reason [at all]" in text


def test_expressions_too_large_for_sympy_are_followed_for_one_step() -> None:
    folder = Path(__file__).parents[3]
    slots = recurra.load(folder / "tests" / "fixtures" / "unseen" / "slot_memory.rec").program
    lstm = recurra.load(folder / "examples" / "zoo" / "lstm.rec").program
    assert exact_steps(lstm, {"D": 2}) == 2
    assert exact_steps(slots, {"D": 2, "M": 2}) == 1
    report = verify(slots, backends={})
    assert report.ok and {"o", "d slots", "d U"} <= {row.quantity for row in report.rows}
