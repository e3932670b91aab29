"""Pairwise products of a chunk's rows as Triton text, decayed from one row's write to the other's read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .chunk_rows import ChunkRows
from .chunk_words import Pairing, woven


@dataclass(frozen=True)
class Level:
    """Pairs of steps on two sides of a border: ``setup`` computes it, ``test`` picks the pairs.

    ``later`` and ``earlier`` pick the rows of each side (of their steps ``{x}`` and ``{y}``): what others have decayed
    to the border may be no number. Empty where all are wanted; None where they have not decayed to there.
    """

    setup: tuple[str, ...]
    test: str
    later: str | None
    earlier: str | None

    def mask(self, p: Pairing, *, turned: bool = False) -> str:
        a, b = ("[None, :]", "[:, None]") if turned else ("[:, None]", "[None, :]")
        return self.test.format(x=f"{p.xs}{a}", y=f"{p.ys}{b}", sub=f"sub{b}")


class ChunkPairs(ChunkRows):
    """Prints matrices of pairs, and what their cotangents are for rows."""

    def by_level(
        self, pairings: Sequence[Pairing], body: Callable[[Level, Sequence[Pairing]], Iterable[str]]
    ) -> Iterator[str]:
        """Decays per channel: pairs of a later block of steps and the block before it, both decayed to the border
        between them, so that no factor exceeds 1 unless states grow; then pairs within one step, or within the longest
        block over which decays are known to be weak enough to decay from its start. ``body`` prints what is done with
        pairings at a level."""
        depth, least = self.f.chunk.bit_length() - 2, self.f.span.bit_length() - 1
        if depth >= least:
            yield f"for level in range(0, {depth - least + 1}):"
            yield f"    shift = {depth} - level"
            level = Level(
                tuple(self._border("_border({}, shift)", "until")),
                "_apart({x}, {y}, shift)",
                later="({x} >> shift) & 1 == 1",
                earlier="({y} >> shift) & 1 == 0",
            )
            yield from (f"    {line}" for line in (*level.setup, *body(level, pairings)))
        for level in self._within(pairings):
            chosen = pairings if self.f.span > 1 else [p for p in pairings if p.linked or p.op == ">="]
            yield from level.setup if chosen else ()
            yield from body(level, chosen)

    def _border(self, text: str, moment: str = "") -> Iterator[str]:
        """The border of every step, and of every row where a step has several; ``text`` gives it of a moment."""
        for ending in self.endings:
            yield f"border{ending} = {text.format(f'{moment}{ending}')}"
            if self.rows > 1:
                yield f"border_rows{ending} = {woven([f'border{ending}'] * self.rows, True)}"

    def _within(self, pairings: Sequence[Pairing]) -> Iterator[Level]:
        """Pairs that no border between blocks of steps separates."""
        span = self.f.span
        if span > 1:
            test = f"({{x}} // {span} == {{y}} // {span})"
            setup = list(self._border(f"_block_start({{}}, {span})", "upto"))
            if span == self.f.chunk:  # nothing has decayed before
                borders = ("border", "border_rows") if self.rows > 1 else ("border",)
                setup = [f"{border}{ending} = 0.0" for border in borders for ending in self.endings]
            yield Level(tuple(setup), test, later="", earlier="")
        elif len(set(self.f.links)) > 1:
            for i, link in enumerate(self.f.links):
                test = f"(({{x}} == {{y}}) & ({{sub}} == {i}))"
                yield Level(tuple(self._border("{}", f"written_{i}")), test, later=f"link > {link}", earlier=None)
        elif any(p.op == ">=" for p in pairings):
            yield Level((), "({x} == {y})", later=None, earlier=None)

    def _side(self, p: Pairing, which: str, level: Level) -> tuple[str, str]:
        """A side of a pairing decayed to the border, and what to multiply with for that."""
        name, g, at = (p.x, p.gx, p.xs) if which == "x" else (p.y, p.gy, p.ys)
        chosen = level.later if which == "x" else level.earlier
        if chosen is None:
            return name, ""
        border = "border_rows" if at == "step" else "border"
        gap = self.gap(g, border) if which == "x" else self.gap(border, g)
        if chosen and (at == "step" or "link" not in chosen):
            gap = f"tl.where(({chosen.format(x=at, y=at)})[:, None], {gap}, 0.0)"
        return f"{name} * tl.exp2({gap})", f" * tl.exp2({gap})"

    def products(self, pairings: Sequence[Pairing], *, turned: bool = False) -> Iterator[str]:
        """The matrices of all pairings (transposed: of y and x)."""
        if not pairings:
            return
        if not self.channel:
            for p in pairings:
                left, right = (p.y, p.x) if turned else (p.x, p.y)
                text = f"{self.dot(left, f'tl.trans({right})')} * {self.factor(p, turned=turned)}"
                yield f"{p.turned if turned else p.name} = {text}"
            return
        for p in pairings:
            sides = [self._count(at) for at in ((p.ys, p.xs) if turned else (p.xs, p.ys))]
            yield f"{p.turned if turned else p.name} = tl.zeros(({sides[0]}, {sides[1]}), tl.float32)"

        def body(level: Level, chosen: Sequence[Pairing]) -> Iterator[str]:
            for p in chosen:
                x, y = self._side(p, "x", level)[0], self._side(p, "y", level)[0]
                left, right = (y, x) if turned else (x, y)
                mask = f"{level.mask(p, turned=turned)} & {p.mask(turned=turned)}"
                target = p.turned if turned else p.name
                yield f"{target} += tl.where({mask}, {self.dot(left, f'tl.trans({right})')}, 0.0)"

        yield from self.by_level(pairings, body)

    def _count(self, at: str) -> int:
        return self.f.chunk * (self.rows if at == "step" else 1)

    def spread_x(self, pairings: Sequence[Pairing]) -> Iterator[str]:
        """Adds to the cotangents of x what comes from those of the products, ``d_x_y``."""
        if not self.channel:
            for p in pairings:
                yield f"d_{p.x} += {self.dot(f'd_{p.name}', p.y)}"
            return

        def body(level: Level, chosen: Sequence[Pairing]) -> Iterator[str]:
            for p in chosen:
                (_, fx), (y, _) = self._side(p, "x", level), self._side(p, "y", level)
                picked = f"tl.where({level.mask(p)} & {p.mask()}, d_{p.name}, 0.0)"
                yield f"d_{p.x} += {self.dot(picked, y)}{fx}"

        yield from self.by_level(pairings, body)

    def spread_y(self, pairings: Sequence[Pairing]) -> Iterator[str]:
        """Adds to the cotangents of y what comes from those of the transposed products, ``d_y_x``."""
        if not self.channel:
            for p in pairings:
                yield f"d_{p.y} += {self.dot(f'd_{p.turned}', p.x)}"
            return

        def body(level: Level, chosen: Sequence[Pairing]) -> Iterator[str]:
            for p in chosen:
                (x, _), (_, fy) = self._side(p, "x", level), self._side(p, "y", level)
                picked = f"tl.where({level.mask(p, turned=True)} & {p.mask(turned=True)}, d_{p.turned}, 0.0)"
                yield f"d_{p.y} += {self.dot(picked, x)}{fy}"

        yield from self.by_level(pairings, body)
