"""Nothing that an author may call things collides with what generated code calls its own."""

from __future__ import annotations

import re

import pytest
from unit.kernels.against_reference import WAYS, arguments, check, run, sizes_of, spec, zoo

from recurra.compiler.codegen.chunk import chunk_blocks
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.lower.chunk import is_free
from recurra.compiler.lower.naming import tensor_name
from recurra.compiler.options import KernelOptions

SPECS = {
    "pointers": """recurrence r
dims V
state h[V]
input q[V], p_q[V], p_h_start[V]
transition h' = tanh(q + p_q + 0.5 * h)
output o[V] = h' * p_h_start
""",
    "gradients": """recurrence r
dims V
state h[V], d_h, d_d_h
input x[V], d_x[V], d_o[V]
param w, d_w
transition h' = tanh(x * d_o + d_h * h + w)
transition d_h' = sin(d_h + d_w + d_d_h)
transition d_d_h' = 0.5 * d_d_h + 0.1
output o[V] = h' * x + d_x
""",
    "places": """recurrence r
dims V
state h[V], h_after[V]
input x[V], h_before[V], h_start[V], h_end, h_checkpoint[V], sum_w, d_h_start, d_h_end
param w
transition h' = tanh(x * h_before + w * h + h_end * sum_w + d_h_start)
transition h_after' = h_after * sigmoid(h_start) + h_checkpoint
output o[V] = h' * d_h_end + h_after'
""",
    "parts": """recurrence r
dims V
state h[V]
input factor_0[V], product_0[V], tap_0[V], before_0[V], x[V], adjoint_product_0, operand_0, forward_operand_0
param W[V, V], U[V, V]
transition h' = tanh(W @ h + factor_0 * product_0 + U @ x * tap_0 + operand_0 * adjoint_product_0)
output o[V] = h' * before_0 * forward_operand_0
output y[V] = U @ h'
""",
    "skeleton": """recurrence tl
dims V
state t[V], t_[V]
input batch[V], steps, tl[V], triton, pid, i_h, heads, count[V], i, o_V[V], m_V[V], range
transition t' = tanh(batch * steps * tl * triton + pid * i_h * heads * count + i * o_V + 0.5 * t_)
transition t_' = 0.5 * t_ + t * range
output m_rows[V] = t' * m_V + t_'
""",
    "sequences": """recurrence r
dims V
state begin[V], end, length[V]
input cu_seqlens[V], row, slot[V], parts, part, pad, last[V], size, here, left[V], sequences, entry, walked[V]
param number[V, V], origin, most[V]
transition begin' = tanh(number @ begin + cu_seqlens * row + slot * parts + origin * last)
transition end' = 0.5 * end + size * here + sequences * part
transition length' = 0.3 * length + left * entry + most * pad * begin'
output part_of_most[V] = length' * walked + end'
""",
    "arguments": """recurrence r
dims V
state h[V]
input x[V], x_ptr[V], x_sb, x_st, x_s0, heads_x
let x_sh = x_sb * x_st
transition h' = tanh(x * x_sh + x_s0 * x_ptr + heads_x * h)
output o[V] = h' * x
""",
    "keywords": """recurrence r
dims V
state lambda[V]
input def, class[V], None, True
transition lambda' = tanh(lambda * True + class * def)
output if[V] = lambda' * None
output import = def * True
""",
    "helpers": """recurrence r
dims V
state h[V]
input x[V]
let _tanh = 0.5 * x
let exp = x * h[0]
let p_x = h * 2
let o_V = h
let float = h * 0.1
let h_next = x * x
transition h' = tanh(_tanh + exp * p_x + float * o_V + h_next)
output o[V] = h'
""",
}


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", SPECS)
def test_names(name: str, strategy: str) -> None:
    program = spec(SPECS[name])
    sizes = sizes_of(program, 5)
    options = KernelOptions(chunk=2, strided=name == "arguments")
    check(program, sizes, arguments(program, sizes, steps=3, heads=1), strategy, options=options)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", ["places", "skeleton", "sequences"])
def test_names_beside_packed_sequences(name: str, strategy: str) -> None:
    program = spec(SPECS[name])
    given = arguments(program, sizes_of(program, 5), lengths=(2, 0, 1), heads=1)
    check(program, sizes_of(program, 5), given, strategy, options=KernelOptions(chunk=2, strided=True))


CHUNKED = """recurrence r
dims K, V
state key[K, V], log[K]
input query_0[K], erase[K], key_0[K], value_0[V], total, sub, scale, read_at_0[K], write_0[K], row
let until = exp(-exp(total))
let upto = l2norm(erase) * sub
let new_0 = value_0 * scale
let wanted = sub * total - scale
let part_0_1 = key_0 + read_at_0
transition key' = until * key + outer(part_0_1, new_0 - upto @ key) + outer(write_0, value_0)
transition log' = until * log + part_0_1 * (wanted - upto @ log) + write_0
let inverse = query_0 @ key'
output micro[V] = inverse * wanted + row * value_0
output flip = (query_0 * scale) @ log'
"""


@pytest.mark.parametrize("schedule", ["fused", "split"])
def test_names_of_the_chunk_algorithm(schedule: str) -> None:
    program, sizes = spec(CHUNKED), {"K": 3, "V": 5}
    options = KernelOptions(chunk=16, schedule=schedule)
    check(program, sizes, arguments(program, sizes, steps=18, heads=1), "chunk", options=options)
    given = arguments(program, sizes, lengths=(2, 0, 17), heads=1)
    check(program, sizes, given, "chunk", options=options)


@pytest.mark.parametrize("name", ["gated_delta_product", "gsa", "kda", "mlstm", "oja", "rwkv6", "rwkv7"])
def test_all_names_of_the_chunk_algorithm_are_known(name: str) -> None:
    program = zoo(name)
    for operand in ("tl.float32", "tl.bfloat16"):
        made = compile_kernels(program, sizes_of(program, 20, 12), KernelOptions(operand=operand), "chunk")
        for facts in (kernel.facts for kernel in made.kernels if "algorithm" in kernel.facts):
            own = {word for m in facts["algorithm"].members for word in (m.state, f"d_{m.state}")}
            printed = chunk_blocks(facts["algorithm"], facts["blocks"], facts["first"])
            lines = [line.split("=")[0].removesuffix("+ ") for block in printed.values() for line in block]
            targets = {word.strip() for line in lines if re.fullmatch(r"[\w, ]+", line) for word in line.split(",")}
            assert len(targets) > 5 and not {word for word in targets - own if is_free(word)}


def test_ordinary_names_are_kept() -> None:
    ordinary = "x q S_t d h_t k2 dt_bias A_log x_before_ stepper heads pre_end_of start"
    changed = {name: tensor_name(name) for name in ordinary.split() if tensor_name(name) != name}
    assert changed == {"x_before_": "x_before__"}


def test_names_stay_different() -> None:
    names = ["d_x", "_d_x", "__d_x", "x_end", "x_end_", "d_x_end", "_d_x_end", "d_x_end_", "tap_0", "tap_0_", "x"]
    assert len({tensor_name(name) for name in names}) == len(names)


def test_variables_have_the_authors_names() -> None:
    program = spec(SPECS["helpers"])
    text = compile_kernels(program, {"V": 5}, KernelOptions()).generated.text
    for line in ("exp = x * ", "h = tl.load(p_h_start", "h = tanh"):
        assert line in text


def test_a_recurrence_without_tensors_runs() -> None:
    program = spec("recurrence r\nstate a, b\ntransition a' = 0.5 * b + 1\ntransition b' = a\noutput o = a' - b'\n")
    given = arguments(program, {}, steps=4, heads=1, start=False)
    for strategy in WAYS:
        assert run(program, {}, given, strategy)["o"].value.flatten().tolist() == [1.0, 0.0, 0.5, 0.0]
