"""Did you mean: the known word that is nearest to what was written."""

from __future__ import annotations

from collections.abc import Iterable


def distance(left: str, right: str, limit: int) -> int:
    """The number of insertions, deletions, replacements and swaps of neighbours between two words.

    Stops early and returns ``limit + 1`` when the words are further apart than ``limit``
    (Damerau 1964, the restricted form in which no part is edited twice).
    """
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return min(row[-1], limit + 1)


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like ``word``, or None when none is near enough to be meant.

    One slip is allowed in words of up to four letters, two up to eight, three beyond; a difference in letter case
    counts less than any other. Ties go to the candidate that comes first.
    """
    limit = 1 if len(word) <= 4 else 2 if len(word) <= 8 else 3
    best: tuple[int, int] | None = None
    found = None
    for candidate in candidates:
        if candidate == word:
            continue
        slips = distance(word.lower(), candidate.lower(), limit)
        if slips > limit or slips >= max(len(word), len(candidate)):
            continue
        rank = (slips, distance(word, candidate, len(word)))
        if best is None or rank < best:
            best, found = rank, candidate
    return found
