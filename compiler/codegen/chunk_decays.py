"""Cotangents of decays as Triton text: from what rows read and wrote, and directly where a decay is almost 0."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..lower.chunk import Memory
from .chunk_backward import ChunkBackward
from .chunk_words import signed_sum


class ChunkDecays(ChunkBackward):
    """Prints what is left to the end of a backward kernel."""

    @property
    def least(self) -> float:
        """The decay from which on the cotangent of its logarithm, divided by it, has digits enough."""
        return 2.0**-7 if self.f.operand == "tl.float32" else 2.0**-3

    def border(self) -> Iterator[str]:
        """The part of every decay's cotangent in what the chunk hands on: first the states that it decays."""
        if self.f.decay == "none":
            return
        parts = []
        for m in self.f.members:
            product = f"{m.state} * d_{m.state}"
            whole = product if m.vector else f"tl.sum({product}, axis={1 if self.channel else 0})"
            # to one number by way of a column: see `total` in triton.py
            parts.append(whole if self.channel else f"tl.sum({f'({whole})' if m.vector else whole}[:, None], axis=0)")
        sign = "flip_all * " if self.f.signed else ""
        yield f"border_log = {sign}{self.since_start('total')} * ({' + '.join(parts)})"

    def cotangents_of_decays(self) -> Iterator[str]:
        """Cotangents of logarithms: of every decay between a write and a later read, and between a write or the state
        before and the state after. Reads less writes from a step on are what was read there and written earlier; what
        was written before a step is handed on through it."""
        f = self.f
        if f.decay == "none":
            return
        after: list[str] = []
        before: list[str] = []
        for q in f.queries:
            if q.over == "mix":
                (before if q.before else after).append(f"moved_{q.name}")
        for read in f.reads:
            if read.over == "column":
                value = f"apart_{read.name}" if self._column_apart(read) else read.name
                value = f"{value} * {self._flip(read)}" if f.signed else value
                (before if read.before else after).append(self._along(f"{value} * d_{read.name}"))
        after += [f"-wrote_write_{j}" for j in range(len(f.given))]
        links = range(len(f.links))
        for i in links:
            if f.scale[i] and self.scalar:
                yield f"read_at_{i} = scale_{i} * d_scale_{i}"
            elif f.reader[i]:
                yield f"read_at_{i} = {self._along(f'late_erase_{i} * d_erase_{i}')}"
        rows = [f"read_at_{i} - wrote_key_{i}" if f.reader[i] else f"-wrote_key_{i}" for i in links]
        handed = [f"handed_key_{i}" for i in links] + [f"handed_write_{j}" for j in range(len(f.given))]
        reads = [*after, *before, *rows]
        yield f"later = {f'_sum_after({signed_sum(reads)})' if reads else '0.0'}"
        yield f"earlier = {f'_sum_before({signed_sum(handed)}) + ' if handed else ''}border_log"
        for number, log in enumerate(f.logs):
            if log is None:
                continue
            own = ["earlier", *after]
            for i, link in enumerate(f.links):
                if link < number:
                    own.append(f"handed_key_{i}")
                if link >= number:
                    own.append(f"-wrote_key_{i}")
                if f.reader[i] and (link > number or (link == number and f.post[i])):
                    own.append(f"read_at_{i}")
            of_log, raw = signed_sum(["later", *own]), f.raws[number]
            if raw is None:
                yield f"d_{log} = tl.where({log} * 1.4426950408889634 > -150.0, {of_log}, 0.0)"
            else:
                yield f"near = {log} < {math.log(self.least)}"
                divisor = f"tl.where({raw} == 0.0, 1.0, {raw})"  # 0 where a sequence or an axis has ended, too
                yield f"d_{raw} = tl.where(near, 0.0, ({of_log}) / {divisor})"
                yield from self._near_zero(number, raw)

    # Where a decay that may be 0 is 0, nothing is left of its logarithm's cotangent, and near 0
    # nothing but rounding. At such steps the state before the decay is multiplied with the cotangent of that after it.

    def _near_zero(self, link: int, raw: str) -> Iterator[str]:
        """Replaces ``d_raw`` where decays are near 0."""
        f = self.f
        tile = "[:, None]" if self.channel else ""
        yield f"hit = {'tl.max(near.to(tl.int32), axis=1)' if self.channel else 'near.to(tl.int32)'}"
        yield f"for past in range(0, {f.chunk}):"
        yield "    if tl.sum(tl.where(row == past, hit, 0), axis=0) > 0:"
        for ending in self.endings:
            sums = [f"upto{ending}", *(f"base_{log}{ending}" for log in f.logs[:link] if log is not None)]
            now = f"tl.sum(tl.where((row == past){tile}, {{}}, 0.0), axis=0)"
            yield f"        moment{ending} = {now.format(' + '.join(sums))}"
            yield f"        moment_end{ending} = moment{ending} + {now.format(f'base_{f.logs[link]}{ending}')}"
        products = []
        for n, m in enumerate(f.members):
            before, after = self._before(n, m, link), self._after(n, m, link)
            yield f"        past_{n} = {' + '.join(before)}"
            yield f"        past_d_{n} = {' + '.join(after)}"
            product = f"past_{n} * past_d_{n}"
            whole = product if m.vector else f"tl.sum({product}, axis={1 if self.channel else 0})"
            products.append(whole if self.channel else f"tl.sum({whole}, axis=0)")
        yield f"        near_d = tl.where((row == past){tile} & near, {' + '.join(products)}, 0.0)"
        yield f"        d_{raw} += tl.where({raw} < 0.0, -near_d, near_d)"

    def _before(self, n: int, m: Memory, link: int) -> list[str]:
        """The state of a member before a link's decay at step ``past``: what the chunk began with, and what earlier
        rows wrote."""
        f = self.f
        begun = self.since_start("moment")
        index = "[:, None]" if self.channel and not m.vector else ""
        terms = [f"{begun}{index} * {m.state}"]
        for key, value, g in self._wrote(n):
            chosen = "row < past"
            if key == "key" and self.rows > 1:
                chosen = f"(step < past) | ((step == past) & (link < {link}))"
            elif key == "key" and f.links[0] < link:
                chosen = "row <= past"
            terms.append(self._weighted(key, value, m, chosen, "moment", g))
        return terms

    def _after(self, n: int, m: Memory, link: int) -> list[str]:
        """The cotangent of a member's state after a link's decay at step ``past``: by way of the state after the chunk,
        and of what later rows read."""
        f = self.f
        rest = f"tl.exp2({self.gap('total', 'moment_end')})"
        index = "[:, None]" if self.channel and not m.vector else ""
        terms = [f"{rest}{index} * after_{m.state}"]
        for r in f.reads:
            if r.member == n:
                left, right = (r.query, f"d_{r.name}") if r.over == "mix" else (f"d_{r.name}", r.query)
                chosen = f"row {'>' if r.before else '>='} past"
                terms.append(self._weighted(left, right, m, chosen, "upto" if r.before else "until", "moment_end"))
        if self.rows:
            sees = [i for i, at in enumerate(f.links) if f.reader[i] and (at > link or (at == link and f.post[i]))]
            if self.rows == 1:
                chosen = f"row {'>=' if sees else '>'} past"
            else:
                same = " | ".join(f"(sub == {i})" for i in sees)
                chosen = f"(step > past) | ((step == past) & ({same}))" if sees else "step > past"
            terms.append(self._weighted("erase", f"d_asked_{n}", m, chosen, "seen", "moment_end"))
        return terms

    def _weighted(self, x: str, y: str, m: Memory, chosen: str, g: str, border: str) -> str:
        """The sum over chosen rows of outer products, decayed from ``border`` until ``g``."""
        gap = self.gap(g, border)
        index = "[:, None]" if self.channel else ""
        factor = f'tl.exp2(tl.where(({chosen}){index}, {gap}, -float("inf")))'
        if self.channel:
            return self.into_state(f"({x} * {factor})", y, m)
        return self.into_state(x, f"({y} * {factor}{'' if m.vector else '[:, None]'})", m)
