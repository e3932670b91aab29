"""Error codes E03xx: ranges and properties."""

from __future__ import annotations

from .code import Code

RANGES: tuple[Code, ...] = ()
