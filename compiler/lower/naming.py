"""Names in generated code: what the author of a spec called things never meets what the compiler calls its own."""

from __future__ import annotations

import keyword
import re

from .kernel_ir import INTEGERS

_SKELETON = "tl triton pid heads i i_b i_h i_r i_c o_rows m_rows t chunk range float"
RESERVED = frozenset((*keyword.kwlist, *_SKELETON.split(), *INTEGERS))
"""Variables that a kernel's skeleton uses."""

_VARIABLE = re.compile(r"_*p_.*|heads_.*|_(tanh|log1p|softplus|logsigmoid|expm1|pow|greatest)_*|.*_(ptr|s[bth]|s\d+)")
"""Variables that stand for addresses, arguments and helper functions."""

_PREFIX = re.compile(r"_*(d|heads)_")
_SUFFIX = re.compile(
    r".*_(start|end|before|after|checkpoint|ptr|s[bth]|s\d+)_*"
    r"|(factor|product|adjoint_product|tap|before|operand|forward_operand|adjoint_operand)_\d+_*"
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
