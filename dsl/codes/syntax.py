"""Error codes E01xx: syntax."""

from __future__ import annotations

from .code import Code

SYNTAX: tuple[Code, ...] = ()
