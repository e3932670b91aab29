"""Error codes E05xx: the layer block."""

from __future__ import annotations

from .code import Code

LAYER: tuple[Code, ...] = ()
