"""Error codes E04xx: transitions and well-formedness."""

from __future__ import annotations

from .code import Code

TRANSITIONS: tuple[Code, ...] = ()
