"""Values as linear maps of old states: which axes they keep, read with a vector, or mix.

A value that is linear in the states is a set of terms; coefficients are remembered only by the values that they are
made of and the axes along which these vary. For any value it is also known along which axes entry i reads only
entry i of a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...dsl.source import Span
from ..ir.program import Body, Instr

MAX_TERMS = 400

Ids = frozenset[int]
Entries = tuple["int | None", ...]
"""For each axis of a state the value's axis whose entry i reads only entry i; None where entries mix."""


@dataclass(frozen=True)
class Reason:
    """Why a value is no simpler, and where that was written."""

    text: str
    span: Span | None


@dataclass(frozen=True)
class Term:
    """One linear map of a state.

    ``kept`` gives for each axis of the state its place in the value, or None; ``read`` the values that it was
    contracted with, where it was contracted with a vector. ``grown`` are places that come from outer products,
    with the values there; ``scale`` are pairs of a place and a value that the term is multiplied with along it.
    ``dense`` says that an axis was mixed with a matrix, or cut, or moved.
    """

    state: str
    kept: tuple[int | None, ...]
    read: tuple[Ids, ...]
    grown: frozenset[tuple[int, Ids]] = frozenset()
    scale: frozenset[tuple[int, int]] = frozenset()
    dense: bool = False
    reason: Reason | None = None


@dataclass(frozen=True)
class Form:
    """How a value depends on states: linearly (``terms``), or not (None, with the reason)."""

    terms: frozenset[Term] | None
    entries: Mapping[str, Entries]
    reason: Reason | None = None

    @property
    def constant(self) -> bool:
        """Whether no state is read."""
        return not self.entries


NOTHING = Form(frozenset(), {})


def forms(body: Body, states: frozenset[str]) -> tuple[Form, ...]:
    """The form of every value in the states named; other leaves are given."""
    walk = _Walk(body, states)
    for position in range(len(body)):
        walk.found.append(walk.form(position))
    return tuple(walk.found)


class _Walk:
    def __init__(self, body: Body, states: frozenset[str]) -> None:
        self.body, self.states = body, states
        self.found: list[Form] = []

    def form(self, position: int) -> Form:
        instr = self.body[position]
        if instr.op == "leaf":
            return self._leaf(instr)
        args = [self.found[arg] for arg in instr.args]
        if all(arg.constant for arg in args):
            return NOTHING
        entries = self._entries(instr, args)
        broken = next((arg for arg in args if arg.terms is None), None)
        if broken is not None:
            return Form(None, entries, broken.reason)
        terms = self._terms(instr, args)
        if isinstance(terms, Reason):
            return Form(None, entries, terms)
        if len(terms) > MAX_TERMS:
            whole = Reason("more terms than are told apart", instr.span)
            terms = frozenset(replace(t, dense=True, reason=whole) for t in list(terms)[:1])
        return Form(terms, entries)

    def _leaf(self, instr: Instr) -> Form:
        kind, name = instr.attrs
        if kind != "state" or name not in self.states:
            return NOTHING
        places = tuple(range(len(instr.axes)))
        return Form(frozenset({Term(name, places, tuple(frozenset[int]() for _ in places))}), {name: places})

    # ------------------------------------------------------------ entries

    def _entries(self, instr: Instr, args: Sequence[Form]) -> Mapping[str, Entries]:
        found: dict[str, Entries] = {}
        for which, arg in enumerate(args):
            for state, entries in arg.entries.items():
                moved = tuple(None if p is None else self._moved(instr, which, p) for p in entries)
                if state in found:
                    moved = tuple(a if a == b else None for a, b in zip(found[state], moved, strict=True))
                found[state] = moved
        return found

    def _moved(self, instr: Instr, which: int, place: int) -> int | None:
        """Where an axis of an operand is in the result; None where its entries mix."""
        match instr.op:
            case "broadcast":
                source: int = instr.attrs[0].index(place)
                return source
            case "sum" | "amax" | "index":
                at = instr.attrs[0]
                return None if place == at else place - (place > at)
            case "place":
                return place + (place >= instr.attrs[0])
            case "slice" | "pad" | "concat":
                return None if place == instr.attrs[0] else place
            case "contract":
                label, out = instr.attrs[which][place], instr.attrs[2]
                return out.index(label) if label in out else None
        return place

    # ------------------------------------------------------------ terms

    def _terms(self, instr: Instr, args: Sequence[Form]) -> frozenset[Term] | Reason:
        terms = [arg.terms or frozenset() for arg in args]
        match instr.op:
            case "neg" | "stop_grad" | "clip_grad":
                return terms[0]
            case "add" | "sub":
                return terms[0] | terms[1]
            case "mul":
                if not args[0].constant and not args[1].constant:
                    return self._product(instr, args)
                which = 0 if args[1].constant else 1
                return frozenset(self._scaled(t, instr.args[1 - which]) for t in terms[which])
            case "div" if args[1].constant:
                return frozenset(self._scaled(t, instr.args[1]) for t in terms[0])
            case "where" if args[0].constant:
                return frozenset(self._scaled(t, instr.args[0]) for t in terms[1] | terms[2])
            case "contract":
                if not args[0].constant and not args[1].constant:
                    return self._product(instr, args)
                which = 0 if args[1].constant else 1
                return frozenset(self._contracted(t, instr, which) for t in terms[which])
            case "broadcast" | "sum" | "index" | "slice" | "place" | "pad" | "concat":
                return frozenset(self._shifted(t, instr, which) for which, part in enumerate(terms) for t in part)
        names = [name for arg in args for name in arg.entries]
        return Reason(f"`{WORDS.get(instr.op, instr.op)}` of {_listed(names)}", instr.span)

    def _product(self, instr: Instr, args: Sequence[Form]) -> Reason:
        left, right = (_listed(arg.entries) for arg in args)
        return Reason(
            f"product of {left} and {right}" if left != right else f"product of {left} with itself", instr.span
        )

    def _root(self, value: int) -> tuple[int, tuple[int, ...]]:
        """A given value without what only repeats it, and the places along which it varies."""
        instr = self.body[value]
        if instr.op == "neg":
            return self._root(instr.args[0])
        if instr.op == "broadcast":
            inner, places = self._root(instr.args[0])
            source = instr.attrs[0]
            return inner, tuple(p for p, s in enumerate(source) if s in places)
        return value, tuple(range(len(instr.axes)))

    def _scaled(self, term: Term, factor: int) -> Term:
        root, places = self._root(factor)
        grown = dict(term.grown)
        scale = set(term.scale)
        for place in places:
            if place in grown and len(places) == 1:
                grown[place] = grown[place] | {root}
            else:
                scale.add((place, root))
        return replace(term, grown=frozenset(grown.items()), scale=frozenset(scale))

    def _contracted(self, term: Term, instr: Instr, which: int) -> Term:
        """A term contracted with a given value: a vector reads an axis, a matrix mixes it."""
        mine, other, out = instr.attrs[which], instr.attrs[1 - which], instr.attrs[2]
        root, _ = self._root(instr.args[1 - which])
        fresh = [label for label in other if label not in mine]
        kept, read, dense = list(term.kept), list(term.read), term.dense
        grown: dict[int, Ids] = {}
        scale: set[tuple[int, int]] = set()
        place = {label: p for p, label in enumerate(mine)}
        scales: dict[int, set[int]] = {}
        for p, value in term.scale:
            scales.setdefault(p, set()).add(value)
        for axis, position in enumerate(term.kept):
            if position is None:
                continue
            label = mine[position]
            if label in out:
                kept[axis] = out.index(label)
            else:
                kept[axis] = None
                read[axis] = frozenset({root, *scales.get(position, ())})
                dense = dense or len(other) > 1
        for p, ids in term.grown:
            if mine[p] in out:
                grown[out.index(mine[p])] = ids
        for p, values in scales.items():
            if mine[p] in out:
                scale |= {(out.index(mine[p]), value) for value in values}
        for label in other:
            if label in place and label in out:
                scale.add((out.index(label), root))
        for label in fresh:
            grown[out.index(label)] = frozenset({root})
        reason = term.reason
        if dense and not term.dense:
            reason = Reason(f"`{term.state}` is multiplied by a matrix", instr.span)
        return replace(term, kept=tuple(kept), read=tuple(read), grown=frozenset(grown.items()),
                       scale=frozenset(scale), dense=dense, reason=reason)  # fmt: skip

    def _shifted(self, term: Term, instr: Instr, which: int) -> Term:
        """A term whose axes are moved, summed over or cut."""
        kept, read, dense, reason = list(term.kept), list(term.read), term.dense, term.reason
        ones = -1  # what a plain sum contracts with
        for axis, p in enumerate(term.kept):
            if p is None:
                continue
            kept[axis] = self._moved(instr, which, p)
            if kept[axis] is not None:
                continue
            if instr.op == "sum":
                read[axis] = frozenset({ones, *(value for q, value in term.scale if q == p)})
            elif not dense:
                dense, reason = True, Reason(f"entries of `{term.state}` are moved", instr.span)
        grown = {self._moved(instr, which, p): ids for p, ids in term.grown}
        scale = {(self._moved(instr, which, p), value) for p, value in term.scale}
        if instr.op == "broadcast":
            grown |= {p: frozenset({ones}) for p, source in enumerate(instr.attrs[0]) if source < 0}
        elif instr.op == "place":
            grown[instr.attrs[0]] = frozenset({ones})
        return replace(
            term,
            kept=tuple(kept),
            read=tuple(read),
            grown=frozenset((p, ids) for p, ids in grown.items() if p is not None),
            scale=frozenset((p, value) for p, value in scale if p is not None),
            dense=dense,
            reason=reason,
        )


WORDS = {"amax": "max", "div": "/", "pow": "^", "lt": "<", "le": "<=", "eq": "==", "ne": "!=", "rsqrt": "rsqrt"}


def _listed(names: Sequence[str] | Mapping[str, Entries]) -> str:
    return " and ".join(f"`{name}`" for name in dict.fromkeys(names))
