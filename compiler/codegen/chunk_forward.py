"""The chunk algorithm forward as Triton text: the solve, what queries read, the states after a chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..lower.chunk import Memory, ReadOut
from .chunk_pairs import ChunkPairs, Level
from .chunk_words import Pairing


class ChunkForward(ChunkPairs):
    """Prints the blocks of forward kernels."""

    def inverse(self) -> Iterator[str]:
        """The inverse of the chunk's unit triangular system."""
        if not self.rows:
            return
        yield from self.products(self.solves)
        matrix = "scale[:, None] * erase_key" if self.f.scaled else "erase_key"
        side = self.f.chunk * self.rows
        yield f"inverse = _unit_lower_inverse({matrix}, {side.bit_length() - 1})"

    def solution(self) -> Iterator[str]:
        """What the rows that read write: ``new_m``."""
        if not self.rows:
            return
        yield from self.products(self.overlaps)
        for n, m in enumerate(self.f.members):
            terms = [self.of_state("erase", "seen", m.state, m)]
            terms += [self.apply(p.name, f"given_{j}_{n}", m) for j, p in self._given(n, self.overlaps)]
            text = " + ".join(terms)
            if self.f.scaled:
                text = f"scale{'' if m.vector else '[:, None]'} * ({text})"
            yield f"wanted = {f'value_{n} + ' if self.has_value(m) else ''}{text}"
            yield self.kept(f"new_{n}", self.apply("inverse", "wanted", m), m.vector)

    def read_outs(self, only: Sequence[str] | None = None) -> Iterator[str]:
        """What queries read; ``only`` some of them."""
        reads = [r for r in self.f.reads if only is None or r.name in only]
        queries = {r.query for r in reads}
        yield from self.products([p for p in self.asks if p.x in queries])
        for read in reads:
            m = self.f.members[read.member]
            if read.over == "column":
                yield from self._column_read(read, m)
                continue
            g = "upto" if read.before else "until"
            terms = [self.of_state(read.query, g, m.state, m)]
            terms += [self.apply(f"{read.query}_{key}", value, m) for key, value, _ in self._wrote(read.member)]
            yield f"{read.name} = {' + '.join(terms)}"

    # Reads over the column: o_t = H q_t + sum_s (q_t . n_s) k_s, decayed along the axis of the result.

    def _column_pairings(self, read: ReadOut) -> list[tuple[Pairing, str]]:
        """How rows of a read over the column pair with keys, and the value at each key."""
        g, op = ("upto", ">") if read.before else ("until", ">=")
        step = "step" if self.rows > 1 else "row"
        at = {"written": step, "until": "row"}
        return [
            (Pairing(read.name, g, "row", key, moment, at[moment] if key == "key" else "row", op), value)
            for key, value, moment in self._wrote(read.member)
        ]

    def _column_read(self, read: ReadOut, m: Memory) -> Iterator[str]:
        g = "upto" if read.before else "until"
        first = self.dot(read.query, f"tl.trans({m.state})")
        yield f"{read.name} = {self.from_start(f'({first})', g)}"
        pairings = self._column_pairings(read)
        apart = self.back and self._column_apart(read)
        if apart:
            pairings = [(p.strict, value) for p, value in pairings]
        for p, value in pairings:
            yield f"score_{p.name} = tl.where({p.mask()}, {self.dot(read.query, f'tl.trans({value})')}, 0.0)"
        if not self.channel:
            for p, _ in pairings:
                yield f"{read.name} += {self.dot(f'(score_{p.name} * {self.factor(p)})', p.y)}"
        else:

            def body(level: Level, chosen: Sequence[Pairing]) -> Iterator[str]:
                for p in chosen:
                    (_, fx), (y, _) = self._side(p, "x", level), self._side(p, "y", level)
                    picked = f"tl.where({level.mask(p)}, score_{p.name}, 0.0)"
                    yield f"{read.name} += {self.dot(picked, y)}{fx}"

            yield from self.by_level([p for p, _ in pairings], body)
        if self.f.signed:
            yield f"{read.name} = {read.name} * {self._flip(read)}"
        if apart:  # what the decays' cotangents need of it, then the step's own write
            yield f"apart_{read.name} = {read.name}"
            for p, value in pairings:
                same = f"tl.sum({read.query}.to(tl.float32) * {value}, axis=1)[:, None] * {p.y}"
                yield f"{read.name} += {f'{same} * {self._flip(read)}' if self.f.signed else same}"

    def _column_apart(self, read: ReadOut) -> bool:
        """Whether what a read over the column takes from its own step's writes, which has not decayed, is apart."""
        one = all(p.ys == "row" for p, _ in self._column_pairings(read))
        return one and not read.before and self.f.decay != "none" and all(log is None for log in self.f.logs[1:])

    def update(self) -> Iterator[str]:
        """The states after the chunk."""
        for n, m in enumerate(self.f.members):
            terms = [self.decayed(m.state, m)]
            terms += [self.at_end(key, g, value, m) for key, value, g in self._wrote(n)]
            text = " + ".join(terms)
            if self.f.signed:
                text = f"{self._flip_all(m)} * ({text})"
            yield f"{m.state} = {text}"
