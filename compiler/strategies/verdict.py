"""What a strategy says about a recurrence, and which one is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Verdict:
    """Whether a strategy applies, and why: one sentence that `recurra explain` prints."""

    strategy: str
    applies: bool
    reason: str

    def and_(self, more: str) -> Verdict:
        """The same with more to say where it applies."""
        return replace(self, reason=f"{self.reason}; {more}") if self.applies else self


def choose(verdicts: Sequence[Verdict], strategy: str) -> str:
    """The strategy of that name, or for ``auto`` the first that applies (ValueError with the reason if not)."""
    if strategy == "auto":
        return next(v.strategy for v in verdicts if v.applies)
    for verdict in verdicts:
        if verdict.strategy == strategy:
            if not verdict.applies:
                raise ValueError(f"strategy {strategy!r} does not apply: {verdict.reason}")
            return strategy
    names = ", ".join(v.strategy for v in verdicts)
    raise ValueError(f"no strategy {strategy!r}; there are auto, {names}")
