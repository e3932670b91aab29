"""Names in generated code: what the author of a spec called things never meets what the compiler calls its own."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Container

from .kernel_ir import INTEGERS, PACKED_INTEGERS

_PYTHON = """
tl triton pid i i_b i_h i_r i_c o_rows m_rows r_t last block blocks chunk range float
cu_seqlens length size row slot here left low high before early
"""
_CPP = """
simd real user vec room rest program programs threads tensors numbers share groups group head sequence rows step end
sequences entry walked number origin slot length most
kept past whole_sum vectors turns iv nv ir nr ic nc INLINE UNROLL alignas alignof asm auto bool case catch char
char8_t char16_t char32_t concept const consteval constexpr constinit const_cast co_await co_return co_yield decltype
default delete do double dynamic_cast enum explicit export extern false friend goto inline int long mutable namespace
new noexcept nullptr operator private protected public register reinterpret_cast requires short signed sizeof static
static_assert static_cast struct switch template this thread_local throw true typedef typeid typename union unsigned
using virtual void volatile wchar_t and_eq bitand bitor compl not_eq or_eq xor xor_eq linux unix
"""
RESERVED = frozenset((*keyword.kwlist, *_PYTHON.split(), *_CPP.split(), "heads", "t", *INTEGERS, *PACKED_INTEGERS))
"""Keywords, and variables that a kernel's skeleton uses."""

_VARIABLE = re.compile(
    r"_*p_.*|(heads|base|kept|tile|product_of_chunk|i)_.*"
    r"|_(tanh|log1p|softplus|logsigmoid|expm1|pow|greatest|scan_.*|bound|sequence_of)_*"
    r"|.*_(ptr|s[bth]|s\d+|at|at_new|at_\d+|sum|part)"
)
"""Variables that stand for addresses, arguments, parts of a value and helper functions."""

_PREFIX = re.compile(r"_*(d|heads)_")
_SUFFIX = re.compile(
    r".*_(start|end|before|after|checkpoint|ptr|s[bth]|s\d+)_*"
    r"|(factor|product|adjoint_product|tap|before|operand|forward_operand|adjoint_operand|read)_\d+_*"
    r"|between_\d+_\d+_*|row_.*"
)


def tensor_name(name: str) -> str:
    """What an input, param, state or output is called in kernels.

    Mostly as in the spec. Names that the compiler gives to tensors of its own (``d_x``, ``S_start``,
    ``tap_0``) get an underscore more, those that look so already as well, so that no two names become one.
    """
    if _PREFIX.match(name):
        name = f"_{name}"
    return f"{name}_" if _SUFFIX.fullmatch(name) else name


def is_free(name: str) -> bool:
    """Whether a variable may have this name."""
    return name not in RESERVED and _VARIABLE.fullmatch(name) is None


def fresh(name: str, taken: Container[str], free: Callable[[str], bool] = is_free) -> str:
    """A name that nothing has: this one, with a number if need be, or another where no number helps."""
    candidate, number = name, 0
    while candidate in taken or not free(candidate):
        number += 1
        candidate = f"{name}_{number}" if free(f"{name}_{number}") else f"v_{name}_{number}"
    return candidate
