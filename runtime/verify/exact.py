"""The first link of the chain: the exact trajectory against the float64 reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from ...compiler.analysis.exact import Numbers, as_float
from ...compiler.analysis.symbolic import Trajectory, Value, trajectory
from ...compiler.ir.program import Program
from .. import reference
from .data import Arguments, draw
from .measure import Quantity, draw_weights, quantities
from .metric import EXACT
from .report import Row

LARGEST = 2_000_000
"""Nodes of an expression, written out as a tree, up to which SymPy builds it within seconds."""


def exact_steps(program: Program, sizes: Mapping[str, int]) -> int:
    """How many steps are followed exactly: two, or one where the expressions would become too large."""
    return 2 if tree_size(program, sizes, 2) <= LARGEST else 1


def tree_size(program: Program, sizes: Mapping[str, int], steps: int) -> int:
    """The nodes of the largest entry of a state after some steps, every shared part written out again."""
    body = program.body
    states = {state.name: 1 for state in program.states}
    for _ in range(steps):
        nodes: list[int] = []
        for instr in body:
            total = 1 + sum(nodes[arg] for arg in instr.args)
            if instr.op == "leaf" and instr.attrs[0] == "state":
                total = states[instr.attrs[1]]
            elif instr.op in ("sum", "amax"):
                total *= body[instr.args[0]].axes[instr.attrs[0]].size.bind(sizes)
            elif instr.op == "contract":
                left, right, out = instr.attrs
                summed = (set(left) | set(right)) - set(out)
                axes = dict(zip((*left, *right), (*body[instr.args[0]].axes, *body[instr.args[1]].axes), strict=True))
                total *= math.prod(axes[label].size.bind(sizes) for label in summed)
            nodes.append(total)
        states = {state.name: nodes[state.next] for state in program.states}
    return max(states.values())


def compare_exact(
    program: Program, sizes: Mapping[str, int], generator: torch.Generator, *, start: bool
) -> tuple[list[Row], str | None]:
    """One or two steps of one sequence and head, forward and all gradients, from given or declared starts.

    Also says why gradients were not compared, if so.
    """
    steps = exact_steps(program, sizes)
    drawn = draw(program, sizes, generator, batch=1, steps=steps, heads=1, start=start)
    weights = draw_weights(program, sizes, generator, (1, steps, 1))
    arguments = drawn.to(torch.float64, [p.name for p in program.params if p.frozen])
    found = quantities(program, sizes, arguments, weights, reference.run)
    exact = trajectory(program, steps, sizes, initial=drawn.initial)
    true = _exact_quantities(program, exact, drawn, weights, found)
    case = f"B=1 T={steps} start" if start else f"B=1 T={steps}"
    rows = []
    for name, value in true.items():
        error = found[name].distance(Quantity(value, "output", 0))
        rows.append(Row(program.name, "sympy = reference", "float64", name, case, error, EXACT, error / EXACT))
    return rows, exact.refusal


def _exact_quantities(
    program: Program,
    exact: Trajectory,
    drawn: Arguments,
    weights: Mapping[str, Tensor],
    like: Mapping[str, Quantity],
) -> dict[str, Tensor]:
    """The exact numbers in the shapes of the reference's quantities; no gradients where refused."""
    values = {symbol: _number(drawn, *key) for key, symbol in exact.symbols.items()}
    numbers = Numbers(values)

    def tensor(expressions: list[Any], shape: torch.Size) -> Tensor:
        return torch.tensor([as_float(numbers(x)) for x in expressions], dtype=torch.float64).reshape(shape)

    parts: dict[str, list[Value]] = {o.name: list(exact.outputs[o.name]) for o in program.outputs}
    parts |= {f"final {s.name}": [exact.states[s.name][-1]] for s in program.states}
    flat = {name: [x for value in group for x in value.values()] for name, group in parts.items()}
    result = {name: tensor(expressions, like[name].value.shape) for name, expressions in flat.items()}
    if exact.refusal is not None:
        return result
    loss = sum(
        _fraction(weight) * x
        for name, expressions in flat.items()
        for weight, x in zip(weights[name].flatten().tolist(), expressions, strict=True)
        if weight
    )
    slopes = numbers.gradient(loss)
    for name in like.keys() - result.keys():
        leaf = name.removeprefix("d ")
        of = [slopes.get(symbol, 0) for key, symbol in exact.symbols.items() if key[0] == leaf]
        result[name] = tensor(of, like[name].value.shape)
    return {name: result[name] for name in like}


def _number(drawn: Arguments, name: str, step: int | None, entry: tuple[int, ...]) -> Any:
    """The exact value of one entry of a drawn argument."""
    if name in drawn.inputs:
        return _fraction(drawn.inputs[name][(0, step, 0, *entry)].item())
    if name in drawn.params:
        return _fraction(drawn.params[name][(0, *entry)].item())
    return _fraction(drawn.initial[name][(0, 0, *entry)].item())


def _fraction(number: float) -> Any:
    import sympy

    fraction = Fraction(number)
    return sympy.Rational(fraction.numerator, fraction.denominator)
