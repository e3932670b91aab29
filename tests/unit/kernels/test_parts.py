"""What is computed before and after the loop, and programs that walk several sequences at once."""

from __future__ import annotations

import pytest
from unit.kernels.against_reference import WAYS, arguments, check, sizes_of, spec

from recurra.compiler.kernels import KernelOptions, compile_kernels

HEADER = """recurrence parts
dims V, K
state h[V]
input x[V], k[K]
param W[V, V], C[V, V], w[V], U[V, K]
"""
CLIPPED = {
    "read by the loop and after it": """let z = clip_grad(x, 0.1)
transition h' = tanh(W @ h + z + U @ k)
output y[V] = C @ h' + z
""",
    "read by the loop and before it": """let z = clip_grad(k, 0.1)
transition h' = tanh(W @ h + U @ z + x * sum(z, K))
output y[V] = C @ h'
""",
    "weights": """transition h' = tanh(clip_grad(W, 0.1) @ h + U @ k + x)
output y[V] = C @ h'
""",
    "param": """let z = clip_grad(w, 0.1)
transition h' = tanh(W @ h + U @ k + x * z)
output y[V] = C @ h' * z
""",
    "state": """transition h' = clip_grad(tanh(clip_grad(W @ h, 0.1) + U @ k + x), 0.2)
output y[V] = clip_grad(C @ h', 0.1) * w
output z[V] = h'
""",
}


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", CLIPPED)
def test_cotangents_are_clipped_once_per_step_and_sequence(name: str, strategy: str) -> None:
    program = spec(HEADER + CLIPPED[name])
    sizes = sizes_of(program, 3, 5)
    check(program, sizes, arguments(program, sizes, batch=2, steps=3, heads=1), strategy)


def test_products_that_need_no_state_leave_the_loop() -> None:
    text = "transition h' = tanh(exp(W) @ h + U @ k + x)\noutput y[V] = C @ h' + w\noutput z[V] = h'\n"
    program = spec(HEADER + text)
    parts = compile_kernels(program, {"V": 3, "K": 5}, KernelOptions()).split
    assert [i.name for i in parts.core.inputs] == ["x", "before_1"]
    assert [p.name for p in parts.core.params] == ["before_0"]
    assert [o.name for o in parts.core.outputs] == ["z", "tap_0"]
    assert [name for name, _ in parts.after] == ["y"]


ROWS = {
    "params of every shape": """param b, Q[V, K]
transition h' = tanh(x * b + W @ h + (Q + 1) @ k + w)
output o[V] = C @ (k @ Q.T + h') * b
""",
    "products of inputs": """param b
transition h' = tanh(x + W @ h * sum(x * h, V) + w * max(k, K) + U @ softmax(k))
output o[V] = h'
output e[K] = k * b
""",
    "scalar states": """state m, c
transition h' = tanh(x + W @ h * m - c)
transition m' = 0.5 * m + max(h', V)
transition c' = 2
output o = m' + logsumexp(h', V)
""",
    "slices": """transition h' = tanh(concat(h[1:V], x[0:1]) + W @ h)
output o[V] = concat((W @ h')[V - 1:V], h'[0:V - 1])
output s = h'[0] * x[1] + (h * x)[2]
""",
    "both sides": """transition h' = tanh(x + W @ h + h @ C + W.T @ sin(h))
output o[V] = W @ (C @ h')
output n[V] = W @ w
""",
}


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", ROWS)
def test_sequences_side_by_side(name: str, strategy: str) -> None:
    program = spec(HEADER + ROWS[name])
    sizes = sizes_of(program, 5, 3)
    assert compile_kernels(program, sizes, KernelOptions(), "recurrent").kernels[0].layout.rows == 16
    given = arguments(program, sizes, batch=3, steps=3, heads=1)
    check(program, sizes, given, strategy, options=KernelOptions(chunk=2), segment=2)
