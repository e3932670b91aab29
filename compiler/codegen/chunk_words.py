"""Words of the chunk algorithm as Triton text: products, decays between two moments, tiles of several rows per step.

Row i of a tile is a step of the chunk, or one of the rows of a step that read the state. Decays are cumulated in base 2
from the start of the chunk: ``until`` and ``upto`` a step with and without itself, ``written`` and ``seen`` where a row
writes and where it reads. Where operands are float32 each is whole numbers and a rest apart (``until_part``): sums of
whole numbers are exact, so that a mild decay after many of 2^-150 keeps its digits. Signs of decays are folded into
keys, erase keys and queries (``flip``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..lower.chunk import ChunkFacts, Memory, ReadOut
from .chunk_products import closed, product


@dataclass(frozen=True)
class Pairing:
    """Rows x that read what rows y wrote: ``x_y[i, j] = x_i . y_j`` decayed from y's write to x's read, where the step
    ``xs`` is later than ``ys`` (or the same, by ``op``; if ``linked`` also in an earlier link of the same step)."""

    x: str
    gx: str
    xs: str
    y: str
    gy: str
    ys: str
    op: str
    linked: bool = False

    @property
    def name(self) -> str:
        return f"{self.x}_{self.y}"

    @property
    def turned(self) -> str:
        """The name of the transposed matrix."""
        return f"{self.y}_{self.x}"

    @property
    def strict(self) -> Pairing:
        """The same without pairs within one step."""
        return replace(self, op=">")

    def mask(self, *, turned: bool = False) -> str:
        a, b = ("[None, :]", "[:, None]") if turned else ("[:, None]", "[None, :]")
        text = f"({self.xs}{a} {self.op} {self.ys}{b})"
        if self.linked:
            text = f"({text} | (({self.xs}{a} == {self.ys}{b}) & (link{a} > link{b})))"
        return text


class ChunkWords:
    """What all blocks of a kernel are made of."""

    def __init__(self, facts: ChunkFacts, back: bool = False) -> None:
        self.f, self.back = facts, back
        self.channel, self.scalar = facts.decay == "channel", facts.decay == "scalar"
        self.endings = ("", "_part") if facts.operand == "tl.float32" else ("",)
        self.narrow: set[str] = set()
        self.rows = facts.substeps
        step = "step" if self.rows > 1 else "row"
        several = len(set(facts.links)) > 1
        self.solves = [Pairing("erase", "seen", step, "key", "written", step, ">", several)] if self.rows else []
        self.overlaps = [
            Pairing("erase", "seen", step, f"write_{j}", "until", "row", ">") for j in range(len(facts.given))
        ] if self.rows else []  # fmt: skip
        self.asks: list[Pairing] = []
        for query in facts.queries:
            if query.over == "mix":
                g, op = ("upto", ">") if query.before else ("until", ">=")
                self.asks += [Pairing(query.name, g, "row", *y, op) for y in self._written(step)]

    def _written(self, step: str) -> list[tuple[str, str, str]]:
        """What is written, when, and the step of each row."""
        found = [("key", "written", step)] if self.rows else []
        return found + [(f"write_{j}", "until", "row") for j in range(len(self.f.given))]

    def dot(self, x: str, y: str) -> str:
        if self.f.operand == "tl.float32":
            return product(x, y, self.f.precision)
        return product(self._operand(x), self._operand(y), None)

    def _operand(self, x: str) -> str:
        if x.removeprefix("tl.trans(").rstrip(")") in self.narrow:
            return x
        return _cast(x, self.f.operand)

    def kept(self, name: str, text: str, vector: bool = False) -> str:
        """A statement for a tile that several products take: from then on it is of their operands' type, which takes
        half the registers where that has 16 bits."""
        if self.f.operand == "tl.float32" or vector:
            return f"{name} = {text}"
        self.narrow.add(name)
        return f"{name} = {_cast(text, self.f.operand)}"

    def apply(self, matrix: str, x: str, m: Memory) -> str:
        return f"tl.sum({matrix} * {x}[None, :], axis=1)" if m.vector else self.dot(matrix, x)

    def outer(self, x: str, y: str, m: Memory) -> str:
        return f"{x}[:, None] * {y}[None, :]" if m.vector else self.dot(x, f"tl.trans({y})")

    def into_state(self, x: str, y: str, m: Memory) -> str:
        return f"tl.sum({x} * {y}[:, None], axis=0)" if m.vector else self.dot(f"tl.trans({x})", y)

    # ---------------------------------------------------------------- decays

    def since_start(self, g: str, index: str = "") -> str:
        """The decay from the start of the chunk until ``g``; ``index`` spreads one number per row over columns."""
        return f"tl.exp2({' + '.join(f'{g}{ending}' for ending in self.endings)}){index}"

    def gap(self, g: str, border: str, g_index: str = "", border_index: str = "") -> str:
        """The logarithm of the decay from ``border`` until ``g``."""
        parts = [f"{g}{ending}{g_index} - {border}{ending}{border_index}" for ending in self.endings]
        return parts[0] if len(parts) == 1 else " + ".join(f"({part})" for part in parts)

    def until_end(self, g: str, index: str = "") -> str:
        """The decay from ``g`` to the end of the chunk."""
        return f"tl.exp2({self.gap('total', g, '[None, :]' if self.channel else '')}){index}"

    def of_state(self, x: str, g: str, state: str, m: Memory) -> str:
        """What vectors read of a state that has decayed until ``g``."""
        if self.channel:
            x = f"{x} * {self.since_start(g)}"
        text = self._in_state(x, state, m)
        return f"{text} * {self.since_start(g, '' if m.vector else '[:, None]')}" if self.scalar else text

    def with_state(self, d: str, g: str, state: str, m: Memory) -> str:
        """Cotangents of vectors from those of what they read of a state, decayed until ``g``."""
        text = f"{d}[:, None] * {state}[None, :]" if m.vector else self.dot(d, f"tl.trans({state})")
        return self.from_start(text, g)

    def from_start(self, x: str, g: str) -> str:
        """A vector per row, decayed from the start of the chunk until ``g``."""
        if self.f.decay == "none":
            return x
        return f"{x} * {self.since_start(g, '' if self.channel else '[:, None]')}"

    def to_end(self, x: str, g: str) -> str:
        """A vector per row, decayed from ``g`` to the end of the chunk."""
        if self.f.decay == "none":
            return x
        return f"{x} * {self.until_end(g, '' if self.channel else '[:, None]')}"

    # A scalar decay scales rows of a product as well as those of an operand: keys are then operands as they are.

    def from_end(self, key: str, g: str, state: str, m: Memory) -> str:
        """What keys, decayed to the end of the chunk, find in a state."""
        text = self._in_state(f"({self.to_end(key, g)})" if self.channel else key, state, m)
        return f"{text} * {self.until_end(g, '' if m.vector else '[:, None]')}" if self.scalar else text

    def at_end(self, key: str, g: str, value: str, m: Memory) -> str:
        """The state that values at keys make by the end of the chunk."""
        if self.scalar:
            return self.into_state(key, f"({value} * {self.until_end(g, '' if m.vector else '[:, None]')})", m)
        return self.into_state(f"({self.to_end(key, g)})", value, m)

    def at_start(self, key: str, g: str, value: str, m: Memory) -> str:
        """The state whose decay until ``g`` makes these values at keys, summed over rows."""
        if self.scalar:
            return self.into_state(key, f"({value} * {self.since_start(g, '' if m.vector else '[:, None]')})", m)
        return self.into_state(f"({self.from_start(key, g)})", value, m)

    def _in_state(self, x: str, state: str, m: Memory) -> str:
        return f"tl.sum({x} * {state}[None, :], axis=1)" if m.vector else self.dot(x, state)

    def decayed(self, state: str, m: Memory) -> str:
        """A state, decayed over the whole chunk."""
        if self.f.decay == "none":
            return state
        return f"{self.since_start('total', '[:, None]' if self.channel and not m.vector else '')} * {state}"

    def factor(self, p: Pairing, *, turned: bool = False) -> str:
        """How much pairs of rows have decayed, zero where they do not see each other."""
        if self.f.decay == "none":
            return f"tl.where({p.mask(turned=turned)}, 1.0, 0.0)"
        between = self.gap(p.gx, p.gy, *(("[None, :]", "[:, None]") if turned else ("[:, None]", "[None, :]")))
        return f'tl.exp2(tl.where({p.mask(turned=turned)}, {between}, -float("inf")))'

    def has_value(self, m: Memory) -> bool:
        return any(m.rows)

    def _given(self, n: int, pairings: Sequence[Pairing]) -> list[tuple[int, Pairing]]:
        """The pairings with given writes of a member."""
        found = []
        for p in pairings:
            if p.y.startswith("write_"):
                j = int(p.y.removeprefix("write_"))
                if self.f.given[j].values[n]:
                    found.append((j, p))
        return found

    def _wrote(self, n: int) -> list[tuple[str, str, str]]:
        """(key, value, moment) of everything that a member's rows write."""
        found = [("key", f"new_{n}", "written")] if self.rows else []
        found += [(f"write_{j}", f"given_{j}_{n}", "until") for j, g in enumerate(self.f.given) if g.values[n]]
        return found

    def _flip(self, read: ReadOut) -> str:
        return ("flip_upto" if read.before else "flip") + ("" if self.channel else "[:, None]")

    def _flip_all(self, m: Memory) -> str:
        return "flip_all[:, None]" if self.channel and not m.vector else "flip_all"


def _cast(x: str, operand: str) -> str:
    bare = x.isidentifier() or (x.startswith(("(", "tl.trans(")) and closed(x))
    return f"{x}.to({operand})" if bare else f"({x}).to({operand})"


def renamed(p: Pairing, x: str) -> Pairing:
    return Pairing(x, p.gx, p.xs, p.y, p.gy, p.ys, p.op, p.linked)


def woven(names: Sequence[str], tile: bool) -> str:
    """An expression for tiles interleaved row by row: the rows of all, in turn."""
    if len(names) == 1:
        return names[0]
    weave = "_interleave_rows" if tile else "tl.interleave"
    return f"{weave}({woven(names[0::2], tile)}, {woven(names[1::2], tile)})"


def parted(target: str, source: str, count: int, ending: str = "") -> Iterator[str]:
    """Statements that take interleaved rows apart."""
    if count == 1:
        if f"{target}_0{ending}" != source:
            yield f"{target}_0{ending} = {source}"
        return

    def take(name: str, numbers: Sequence[int]) -> Iterator[str]:
        halves = [numbers[0::2], numbers[1::2]]
        names = [
            f"{target}_{half[0]}{ending}" if len(half) == 1 else f"part_{'_'.join(map(str, half))}" for half in halves
        ]
        yield f"{names[0]}, {names[1]} = _even_odd({name})"
        for half, inner in zip(halves, names, strict=True):
            if len(half) > 1:
                yield from take(inner, half)

    yield from take(source, range(count))


def signed_sum(parts: Sequence[str]) -> str:
    if not parts:
        return "0.0"
    first, *rest = parts
    return first + "".join(f" - {p[1:]}" if p.startswith("-") else f" + {p}" for p in rest)
