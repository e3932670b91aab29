"""Triton on machines without a GPU: its interpreter, chosen before Triton is imported."""

from __future__ import annotations

import os
import sys

_SWITCH = "TRITON_INTERPRET"


def prepare() -> str | None:
    """Turn Triton's interpreter on where no GPU is present; the reason why that is no longer possible.

    Triton decides when it is imported whether functions are compiled or interpreted, so on a machine
    without a GPU this runs before the first import of Triton.
    """
    import torch

    if torch.cuda.is_available() or os.environ.get(_SWITCH) == "1":
        return None
    if "triton" in sys.modules:
        return f"Triton was imported before Recurra, without its interpreter: set {_SWITCH}=1 at the start"
    os.environ[_SWITCH] = "1"
    return None


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter in this process."""
    return os.environ.get(_SWITCH) == "1"
