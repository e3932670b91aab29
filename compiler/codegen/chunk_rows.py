"""Rows and decays of a chunk as Triton text: moments, signs, and the rows of all substeps as one tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .chunk_words import ChunkWords, woven


class ChunkRows(ChunkWords):
    """Prints what the algorithm reads: rows, their decays and signs, as operands of products."""

    def decays(self) -> Iterator[str]:
        """Cumulated decays and signs, and the rows of all substeps in the order of time."""
        f = self.f
        yield "row = o_rows"
        if self.rows > 1:
            yield f"micro = tl.arange(0, {f.chunk * self.rows})"
            yield f"step, sub = micro // {self.rows}, micro % {self.rows}"
            yield f"link = {self._table(f.links)}"
        yield from self.cumulated()
        if f.signed:
            yield from self._signs()
        yield from self._rows("key", [True] * len(f.links))
        yield from self._rows("erase", f.reader)
        yield from self._rows("scale", f.scale)
        yield from (
            self.kept(f"write_{j}", f"write_{j}") for j in range(len(f.given)) if self.f.operand != "tl.float32"
        )

    def cumulated(self) -> Iterator[str]:
        """Decays from the start of the chunk to every moment. They are computed again from logarithms that were loaded
        again: what pairs of rows have decayed is then not what it was to the compiler, which would keep it so long."""
        f = self.f
        if f.decay == "none":
            return
        for log in filter(None, f.logs):
            if len(self.endings) == 1:
                yield f"base_{log} = _bounded({log})"
            else:
                yield f"base_{log}, base_{log}_part = _whole_and_part(_bounded({log}))"
        for ending in self.endings:
            yield f"log{ending} = {' + '.join(f'base_{log}{ending}' for log in filter(None, f.logs))}"
            yield f"until{ending} = tl.cumsum(log{ending}, axis=0)"
            yield f"upto{ending} = until{ending} - log{ending}"
            yield f"total{ending} = tl.sum(log{ending}, axis=0)"
            yield from self._moments("written", [True] * len(f.links), ending)
            yield from self._moments("seen", f.post, ending)

    def _table(self, numbers: Sequence[int]) -> str:
        """A number for each row by its place within the step."""
        text = "0"
        for i, number in enumerate(numbers):
            if number:
                text = f"tl.where(sub == {i}, {number}, {text})"
        return text if text != "0" else "sub * 0"

    def _moments(self, target: str, post: Sequence[bool], ending: str) -> Iterator[str]:
        """For each row what was cumulated until its moment within the step."""
        if not self.rows:
            return
        moments = []
        for i, link in enumerate(self.f.links):
            past = [
                f"base_{log}{ending}"
                for at, log in enumerate(self.f.logs)
                if log is not None and (at < link or (post[i] and at == link))
            ]
            whole = len(past) == len(list(filter(None, self.f.logs)))
            moments.append(f"until{ending}" if whole else " + ".join([f"upto{ending}", *past]))
        for i, text in enumerate(moments):
            yield f"{target}_{i}{ending} = {text}"
        names = [f"{target}_{i}{ending}" for i in range(len(moments))]
        # rows that no link has are as any other: nothing may overflow
        text = names[0] if self.rows == 1 else self._interleaved(names, self.channel, names[-1])
        yield f"{target}{ending} = {text}"

    def _interleaved(self, names: Sequence[str], tile: bool, other: str) -> str:
        """The rows of all substeps; ``other`` for those that fill up their number to a power of two."""
        return woven([*names, *([other] * (self.rows - len(names)))], tile)

    def _signs(self) -> Iterator[str]:
        """Running signs, exact: the parity of how many negative decays came before."""
        f = self.f
        for raw in filter(None, f.raws):
            yield f"odd_{raw} = ({raw} < 0.0).to(tl.int32)"
        yield f"odd = {' + '.join(f'odd_{raw}' for raw in filter(None, f.raws))}"
        yield "odd_until = tl.cumsum(odd, axis=0)"
        yield "odd_upto = odd_until - odd"
        yield "flip = _parity(odd_until)"
        yield "flip_upto = _parity(odd_upto)"
        yield "flip_all = _parity(tl.sum(odd, axis=0))"
        tile = "" if self.channel else "[:, None]"
        for i, link in enumerate(f.links):
            for word, post in (("written", True), ("seen", f.post[i])):
                past = [
                    f"odd_{raw}"
                    for at, raw in enumerate(f.raws)
                    if raw is not None and (at < link or (post and at == link))
                ]
                yield f"flip_{word}_{i} = _parity({' + '.join(['odd_upto', *past])}){tile}"
            yield f"key_{i} = key_{i} * flip_written_{i}"
            if f.reader[i]:
                yield f"erase_{i} = erase_{i} * flip_seen_{i}"
        for j in range(len(f.given)):
            yield f"write_{j} = write_{j} * flip{tile}"

    def _rows(self, kind: str, present: Sequence[bool], ending: str = "", vector: bool = False) -> Iterator[str]:
        """The rows of all substeps as one tile; those that a link does not have are zero (a scale is one)."""
        if not any(present):
            return
        names = [f"{kind}_{i}{ending}" for i in range(len(present))]
        like = names[list(present).index(True)]
        other = f"tl.full(({self.f.chunk},), 1.0, tl.float32)" if kind == "scale" else f"tl.zeros_like({like})"
        chosen = [name if here else other for name, here in zip(names, present, strict=True)]
        tile = kind != "scale" and not vector
        text = chosen[0] if self.rows == 1 else self._interleaved(chosen, tile, f"tl.zeros_like({like})")
        if kind in ("key", "erase"):
            yield self.kept(kind, text)
        else:
            yield f"{kind}{ending} = {text}"

    def values(self) -> Iterator[str]:
        """What rows are given to write."""
        for n, m in enumerate(self.f.members):
            yield from self._rows("value", m.rows, f"_{n}", m.vector)
        if self.f.operand != "tl.float32":
            for j, given in enumerate(self.f.given):
                for n, m in enumerate(self.f.members):
                    if given.values[n] and not m.vector:
                        yield self.kept(f"given_{j}_{n}", f"given_{j}_{n}")

    def queries(self) -> Iterator[str]:
        """Queries with their signs."""
        tile = "" if self.channel else "[:, None]"
        for q in self.f.queries:
            text = q.name
            if self.f.signed and q.over == "mix":
                text = f"{q.name} * {'flip_upto' if q.before else 'flip'}{tile}"
            if text != q.name or self.f.operand != "tl.float32":
                yield self.kept(q.name, text)

    def states_kept(self) -> Iterator[str]:
        """States that were read from memory, as operands of products."""
        if self.f.operand != "tl.float32":
            yield from (self.kept(m.state, m.state) for m in self.f.members if not m.vector)

    def costates_kept(self) -> Iterator[str]:
        """The same for their cotangents."""
        if self.f.operand != "tl.float32":
            yield from (self.kept(f"d_{m.state}", f"d_{m.state}") for m in self.f.members if not m.vector)
