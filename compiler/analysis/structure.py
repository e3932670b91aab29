"""What kind of transition every state has: how its new value depends on the old ones.

Values are read as linear maps of the old states (linear.py) as far as they are linear, and by which entries they
read where they are not, so the operator form and the free form of a transition get the same class. States fall into
strata: a state that others read but that reads none of them comes first, and counts as given for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...dsl.source import Span
from ..ir.program import Program, State, live
from .linear import Form, Reason, Term, forms

SCALAR = "scalar decay"
DIAGONAL = "diagonal"
HOUSEHOLDER = "Householder"
LOW_RANK = "diagonal plus low rank"
DENSE = "dense affine"
REPLACED = "replaced"
SEPARATE = "non-linear, independent"
COUPLED = "non-linear, coupled"


@dataclass(frozen=True)
class TransitionFacts:
    """The class of one state's transition.

    ``kind`` is one of the names above. ``along`` are the axes that the class is about: those along which a diagonal
    varies, the one that a low rank mixes, those whose entries do not mix in a non-linear one. ``rank`` counts
    Householder factors or ranks. ``affine`` is whether the new state is affine in the states of its stratum,
    ``reads`` are the old states that it reads (its own included), ``stratum`` counts from 0.
    """

    state: str
    kind: str
    along: tuple[str, ...]
    rank: int
    affine: bool
    reads: tuple[str, ...]
    stratum: int
    reason: str
    span: Span

    @property
    def title(self) -> str:
        """The class in words: ``product of 2 Householders``, ``diagonal along K``."""
        where = f" along {', '.join(self.along)}" if self.along else ""
        match self.kind:
            case "Householder" if self.rank > 1:
                return f"product of {self.rank} Householders{where}"
            case "diagonal plus low rank":
                return f"diagonal plus rank {self.rank}{where}"
            case "non-linear, independent":
                return f"non-linear with independent entries{where}"
        return f"{self.kind}{where}"


def classify(program: Program) -> tuple[TransitionFacts, ...]:
    """The facts about every state's transition, in declaration order."""
    reads = {state.name: _reads(program, state) for state in program.states}
    levels = strata(reads)
    found: dict[str, TransitionFacts] = {}
    for level, names in enumerate(levels):
        values = forms(program.body, frozenset(names))
        for state in program.states:
            if state.name in names:
                found[state.name] = _facts(program, state, values[state.next], reads[state.name], level)
    return tuple(found[state.name] for state in program.states)


def _reads(program: Program, state: State) -> tuple[str, ...]:
    needed = live(program.body, (state.next,))
    used = {
        program.body[p].attrs[1] for p in needed if program.body[p].op == "leaf" and program.body[p].attrs[0] == "state"
    }
    return tuple(s.name for s in program.states if s.name in used)


def strata(reads: dict[str, tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Groups of states that read each other, each after those it reads."""
    reach = {name: set(found) for name, found in reads.items()}
    for middle in reads:
        for name in reads:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    groups: list[tuple[str, ...]] = []
    for name in reads:
        if not any(name in group for group in groups):
            groups.append((name, *(o for o in reads if o != name and o in reach[name] and name in reach[o])))
    done: list[tuple[str, ...]] = []
    while groups:
        placed = {name for group in done for name in group}
        ready = next(g for g in groups if all(set(reads[name]) <= placed | set(g) for name in g))
        done.append(ready)
        groups.remove(ready)
    return tuple(done)


def _facts(program: Program, state: State, form: Form, reads: tuple[str, ...], level: int) -> TransitionFacts:
    span = program.body[state.next].span or state.span

    def facts(kind: str, along: tuple[str, ...], rank: int, why: Reason | str, affine: bool = True) -> TransitionFacts:
        reason, place = (why, span) if isinstance(why, str) else (why.text, why.span or span)
        return TransitionFacts(state.name, kind, along, rank, affine, reads, level, reason, place)

    names = [axis.name for axis in state.axes]
    if form.terms is None:
        assert form.reason is not None
        free = tuple(name for i, name in enumerate(names) if all(i in places for places in form.entries.values()))
        separate = bool(free) or (not names and set(form.entries) == {state.name})
        return facts(SEPARATE if separate else COUPLED, free, 0, form.reason, affine=False)
    own_terms = [term for term in form.terms if term.state == state.name]
    if not own_terms:
        return facts(REPLACED, (), 0, f"`{state.name}'` does not read `{state.name}`")
    dense = next((t for t in own_terms if _side(t, len(names)) is None), None)
    sides = {_side(t, len(names)) for t in own_terms} - {None, -1}
    diagonal = [t for t in own_terms if _side(t, len(names)) == -1]
    along = tuple(name for i, name in enumerate(names) if any(p == i for t in diagonal for p, _ in t.scale))
    if dense is not None or len(sides) > 1:
        return facts(
            DENSE,
            (),
            0,
            dense.reason if dense and dense.reason else f"`{state.name}` is mixed along {' and '.join(names)}",
        )
    if not sides:
        if not along:
            return facts(SCALAR, (), 0, f"`{state.name}` is scaled as a whole")
        return facts(DIAGONAL, along, 0, f"every entry of `{state.name}` is scaled on its own")
    (side,) = sides
    assert side is not None
    low = [t for t in own_terms if t not in diagonal]
    factors = _householders(low, side) if diagonal and not along else 0
    if factors:
        return facts(HOUSEHOLDER, (names[side],), factors, f"what `{state.name}` holds under a vector is erased")
    rank = min(len({t.grown for t in low}), len({t.read[side] for t in low}))
    return facts(
        LOW_RANK, (names[side],), rank, f"`{state.name}` is read by vectors along `{names[side]}` and written back"
    )


def _side(term: Term, count: int) -> int | None:
    """-1 for an entry-wise term, the axis that a rank-one term mixes, None for anything else."""
    if term.dense:
        return None
    moved = [i for i in range(count) if term.kept[i] != i]
    if not moved and not term.grown:
        return -1
    if len(moved) != 1 or term.kept[moved[0]] is not None or {p for p, _ in term.grown} != {moved[0]}:
        return None
    return moved[0]


def _householders(terms: Sequence[Term], side: int) -> int:
    """N if the terms are what a product of N factors ``I - beta k k^T`` expands to, else 0.

    Expanded, the product writes under every vector what it read under it and under the earlier ones.
    """
    if any(term.scale for term in terms):
        return 0
    pairs = {(next(ids for p, ids in term.grown if p == side), term.read[side]) for term in terms}
    writes = [write for write, read in pairs if write == read]
    count = len(writes)
    if any(len(write) != 1 for write in writes) or len(pairs) != count * (count + 1) // 2:
        return 0
    ordered = sorted(writes, key=lambda w: sum(write == w for write, _ in pairs))
    expected = {(later, earlier) for i, later in enumerate(ordered) for earlier in ordered[: i + 1]}
    return count if pairs == expected else 0


def show_facts(found: Sequence[TransitionFacts]) -> str:
    """One line a state: ``S: Householder along K (what `S` holds under a vector is erased)``."""
    return "\n".join(f"{facts.state}: {facts.title} ({facts.reason})" for facts in found)
