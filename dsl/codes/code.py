"""What is known about one error code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """One registered error: its number, a title, a paragraph that explains it, and how to mend it.

    ``wrong`` and ``right`` are `.rec` texts (a whole file, or the lines that matter).
    """

    code: str
    title: str
    explanation: str
    wrong: str
    right: str
