"""From the syntax tree to the typed IR."""

from __future__ import annotations

from .elaborate import elaborate, elaborate_partial

__all__ = ["elaborate", "elaborate_partial"]
