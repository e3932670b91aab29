"""The `stepwise` strategy: the library's matrix products and point-wise kernels, step by step."""

from __future__ import annotations

from ..ir.program import Program, depends_on, live
from ..lower.stepwise import is_library
from .verdict import Verdict

NAME = "stepwise"


def verdict(program: Program) -> Verdict:
    """Always applies: nothing has to fit on chip. It pays for that with kernel launches at every step."""
    body, moving = program.body, depends_on(program.body, ("state",))
    products = sum(is_library(body, p, moving) for p in live(body, program.roots()))
    what = "one matrix product" if products == 1 else f"{products} matrix products"
    return Verdict(NAME, True, f"{what} by the library and a point-wise kernel at every step")
