"""What a strategy says about a recurrence, and which one is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Verdict:
    """Whether a strategy applies, and why: one sentence that `recurra explain` prints; ``seconds`` is what the model of
    costs expects of it (cost.py), in which only ratios mean something."""

    strategy: str
    applies: bool
    reason: str
    seconds: float = 0.0
    cost: str = ""

    def and_(self, more: str) -> Verdict:
        """The same with more to say where it applies."""
        return replace(self, reason=f"{self.reason}; {more}") if self.applies else self


def choose(verdicts: Sequence[Verdict], strategy: str) -> str:
    """The strategy of that name, or for ``auto`` the cheapest that applies, the first of equals.

    ValueError with the reason if the one named does not apply.
    """
    if strategy == "auto":
        return min((v for v in verdicts if v.applies), key=lambda v: v.seconds).strategy
    for verdict in verdicts:
        if verdict.strategy == strategy:
            if not verdict.applies:
                raise ValueError(f"strategy {strategy!r} does not apply: {verdict.reason}")
            return strategy
    names = ", ".join(v.strategy for v in verdicts)
    raise ValueError(f"no strategy {strategy!r}; there are auto, {names}")
