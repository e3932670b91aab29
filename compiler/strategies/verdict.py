"""What a strategy says about a recurrence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether a strategy applies, and why: one sentence that `recurra explain` prints."""

    strategy: str
    applies: bool
    reason: str
