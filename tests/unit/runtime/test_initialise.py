from __future__ import annotations

import math

import pytest
import torch
from programs import SPAN, declare

from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.program import Initialiser, Param, Program
from recurra.runtime.errors import CallError
from recurra.runtime.initialise import RULES, initialise


def one(rule: str, *numbers: float, axes: str = "K V") -> Program:
    return declare(states={"S": "K V"}, inputs={}, params={"W": axes}, inits={"W": Initialiser(rule, numbers)})


def drawn(rule: str, *numbers: float, axes: str = "K V", K: int = 6, V: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    program = one(rule, *numbers, axes=axes)
    return initialise(program, 3, {"K": K, "V": V}, generator=generator, dtype=torch.float64)["W"]


def test_constants() -> None:
    assert torch.equal(drawn("zeros"), torch.zeros(3, 6, 4).double())
    assert torch.equal(drawn("ones", axes=""), torch.ones(3).double())
    assert torch.equal(drawn("identity", axes="K K"), torch.eye(6).double().expand(3, 6, 6))
    assert torch.equal(drawn("identity"), torch.eye(6, 4).double().expand(3, 6, 4))


@pytest.mark.parametrize(("rows", "columns"), [(6, 4), (4, 6), (5, 5)])
def test_orthogonal_rows_or_columns(rows: int, columns: int) -> None:
    W = drawn("orthogonal", K=rows, V=columns)
    gram = W.mT @ W if rows >= columns else W @ W.mT
    torch.testing.assert_close(gram, torch.eye(min(rows, columns)).double().expand(3, -1, -1))
    assert not torch.allclose(W[0], W[1])


def test_orthogonal_signs_are_fair() -> None:
    signs = [drawn("orthogonal", K=2, V=2, seed=seed)[:, 0, 0].sign() for seed in range(100)]
    assert abs(torch.stack(signs).mean()) < 0.25


def test_normal() -> None:
    W = drawn("normal", 0.5, K=100, V=100)
    assert abs(W.mean()) < 0.01 and abs(W.std() - 0.5) < 0.01


@pytest.mark.parametrize("rule", ["uniform", "log_uniform", "inv_softplus_log_uniform"])
def test_uniform_rules_fill_their_bounds(rule: str) -> None:
    low, high = 0.001, 0.1
    W = drawn(rule, low, high, K=100, V=100)
    if rule == "inv_softplus_log_uniform":
        W = torch.nn.functional.softplus(W)
    assert low * 0.999 <= W.min() < low * 1.2 and high * 0.98 < W.max() <= high * 1.001
    middle = math.sqrt(low * high) if "log" in rule else (low + high) / 2
    assert abs((middle > W).double().mean() - 0.5) < 0.02


def test_arange_counts_along_the_last_axis() -> None:
    torch.testing.assert_close(drawn("arange", 0.5, 2.0), torch.tensor([0.5, 2.5, 4.5, 6.5]).double().expand(3, 6, 4))


def test_hippo_real_counts_along_the_last_axis() -> None:
    W = drawn("hippo_real")
    torch.testing.assert_close(W.exp(), torch.arange(1.0, 5).double().expand(3, 6, 4))


def test_spectral_radius() -> None:
    W = drawn("spectral", 0.9, axes="K K", K=20)
    torch.testing.assert_close(torch.linalg.eigvals(W).abs().amax(-1), torch.full((3,), 0.9).double())


def test_expression_of_the_head() -> None:
    builder = Builder()
    power = builder.apply("pow", builder.const(2.0), builder.sub(builder.const(-5.0), builder.leaf("head", "head")))
    value = builder.apply("log", builder.sub(builder.const(1.0), power))
    base = one("zeros", axes="K")
    program = Program(
        **{
            **{name: getattr(base, name) for name in base.__dataclass_fields__},
            "params": (Param("W", base.params[0].axes, Initialiser("expression", (), value), False, SPAN),),
            "body": tuple(builder.body),
        }
    )
    W = initialise(program, 4, {"K": 2}, dtype=torch.float64)["W"]
    expected = [math.log(1 - 2.0 ** (-5 - head)) for head in range(4)]
    torch.testing.assert_close(W, torch.tensor(expected).double()[:, None].expand(4, 2))


def test_every_rule_of_the_language_is_there() -> None:
    named = "zeros ones identity orthogonal normal uniform log_uniform inv_softplus_log_uniform arange hippo_real"
    assert list(RULES) == [*named.split(), "spectral"]


def test_a_seed_means_the_same_at_every_dtype() -> None:
    program = one("orthogonal")
    draws = [
        initialise(program, 2, {"K": 4, "V": 4}, generator=torch.Generator().manual_seed(7), dtype=dtype)["W"]
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert draws[0].dtype == torch.float32
    assert torch.equal(draws[0].bfloat16(), draws[1])


@pytest.mark.parametrize(
    ("program", "sizes", "message"),
    [
        (one("zeros"), {"K": 4}, "`W` needs the size V"),
        (one("orthogonal", axes="K"), {"K": 4}, "initialised as orthogonal, which needs a matrix"),
        (one("spectral", 0.9), {"K": 4, "V": 3}, "initialised as spectral, which needs a square matrix"),
    ],
)
def test_what_does_not_fit(program: Program, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(CallError, match=message):
        initialise(program, 2, sizes)
