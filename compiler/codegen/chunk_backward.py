"""The chunk algorithm backward as Triton text: cotangents of everything that chunk_forward.py computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..lower.chunk import Memory, ReadOut
from .chunk_forward import ChunkForward
from .chunk_pairs import Level
from .chunk_words import Pairing, parted, renamed


class ChunkBackward(ChunkForward):
    """Prints the blocks of backward kernels."""

    # Pairs within one step have not decayed: what they contribute to the decays' cotangents cancels, and where decays
    # are strong would leave rounding of something large. So they are added after those are taken; so is what a chunk
    # hands on of its last steps.

    @property
    def _aparts(self) -> bool:
        """Whether pairs within one step have not decayed, so that they can be left out."""
        return self.f.decay != "none" and all(log is None for log in self.f.logs[1:])

    def _asked(self) -> list[Pairing]:
        """The pairings of queries, without pairs within one step where those are apart."""
        asked = [p for p in self.asks if self._products_back(p)]
        return [p.strict for p in asked] if self._aparts else asked

    def _same(self) -> list[Pairing]:
        """Those that have pairs within one step apart."""
        return [p for p in self.asks if self._aparts and p.op == ">=" and self._products_back(p)]

    def _same_x(self) -> Iterator[str]:
        """Cotangents of queries from pairs within one step."""
        for p in self._same():
            products = self._products_back(p)
            if p.ys == "row":
                if self.channel:
                    terms = [
                        f"{d} * {v}" if m.vector else f"tl.sum({d}.to(tl.float32) * {v}, axis=1)"
                        for d, v, m in products
                    ]
                    yield f"same_{p.name} = {' + '.join(terms)}"
                yield f"d_{p.x} += {self.dot(self._diagonal(p), p.y)}"
            else:
                text = " + ".join(self.outer(d, v, m) for d, v, m in products)
                yield f"same_{p.name} = tl.where({p.xs}[:, None] == {p.ys}[None, :], {text}, 0.0)"
                yield f"d_{p.x} += {self.dot(f'same_{p.name}', p.y)}"

    def _same_y(self) -> Iterator[str]:
        """Cotangents of keys from pairs within one step."""
        for p in self._same():
            if p.ys == "row":
                yield f"d_{p.y} += {self.dot(self._diagonal(p), p.x)}"
            else:
                text = " + ".join(self.outer(v, d, m) for d, v, m in self._products_back(p))
                yield f"same_{p.turned} = tl.where({p.xs}[None, :] == {p.ys}[:, None], {text}, 0.0)"
                yield f"d_{p.y} += {self.dot(f'same_{p.turned}', p.x)}"

    def _diagonal(self, p: Pairing) -> str:
        """A number per step as a matrix: its product takes an operand that is there, not rows that are loaded again."""
        return f"tl.where({p.xs}[:, None] == {p.ys}[None, :], same_{p.name}[:, None], 0.0)"

    def _same_value(self, key: str, read: ReadOut, m: Memory) -> list[str]:
        """What a read's cotangent is to what its own step wrote, if products leave that out."""
        same = [p for p in self._same() if self.channel and p.x == read.query and p.y == key and p.ys == "row"]
        return [f"same_{p.turned}{'' if m.vector else '[:, None]'} * d_{read.name}" for p in same]

    def cotangents_of_solves(self) -> Iterator[str]:
        """Cotangents of what rows asked of the state: all that the states' own cotangents need."""
        return self.cotangents_of_writes(alone=True) if self.rows else iter(())

    def cotangents_of_writes(self, *, alone: bool = False) -> Iterator[str]:
        """Cotangents of everything that was written, the solve taken back; ``alone``: only those of rows that read,
        and nothing of what later parts of the backward need."""
        f = self.f
        mixed = [r for r in f.reads if r.over == "mix"]
        # rows of several substeps keep their own step's
        whole = {p.name: p for p in self.asks if p.ys == "step" or not self.channel}
        asked = [p for p in self._asked() if p.y == "key" or not alone]
        yield from self.products([whole.get(p.name, p) for p in asked], turned=True)
        for p in self._same():
            if self.channel and p.ys == "row" and (p.y == "key" or not alone):
                yield f"same_{p.turned} = tl.sum({p.x}.to(tl.float32) * {p.y}, axis=1)"
        columns = [(read, self._column_pairings(read)) for read in f.reads if read.over == "column"]
        for read, pairings in columns:
            yield from self.products([renamed(p, f"d_{read.name}") for p, _ in pairings], turned=True)
        for n, m in enumerate(f.members):
            for key, value, g in self._wrote(n)[: 1 if alone else None]:
                terms = [self.from_end(key, g, f"after_{m.state}", m)]
                terms += [self.apply(f"{key}_{r.query}", f"d_{r.name}", m) for r in mixed if r.member == n]
                terms += [text for r in mixed if r.member == n for text in self._same_value(key, r, m)]
                terms += [
                    self.dot(f"{p.y}_d_{read.name}", read.query)
                    for read, pairings in columns
                    if read.member == n
                    for p, _ in pairings
                    if p.y == key
                ]
                yield f"d_{value} = {' + '.join(terms)}"
        if self.rows:
            yield from self.products([] if alone else self.overlaps, turned=True)
            for n, m in enumerate(f.members):
                yield f"d_value_{n} = {self.apply('inverse_t', f'd_new_{n}', m)}"
                scale = f"scale{'' if m.vector else '[:, None]'} * " if f.scaled else ""
                yield self.kept(f"d_asked_{n}", f"{scale}d_value_{n}", m.vector)
                for j, p in [] if alone else self._given(n, self.overlaps):
                    yield f"d_given_{j}_{n} += {self.apply(p.turned, f'd_asked_{n}', m)}"

    def matrix_back(self, p: Pairing, *, turned: bool = False) -> Iterator[str]:
        """The cotangent of a pairing's matrix, with the factor of its decays where that is one per pair."""
        products = self._products_back(p)
        if turned and not self._asks(p):  # what reaches a key has passed the scale
            products = [(d.replace("d_value", "d_asked"), value, m) for d, value, m in products]
        text = " + ".join(self.outer(value, d, m) if turned else self.outer(d, value, m) for d, value, m in products)
        name = f"d_{p.turned if turned else p.name}"
        if self.channel:
            yield f"{name} = {text}"
            return
        if turned or all(same.name != p.name or same.ys != "row" for same in self._same()):
            text = f"({text})" if len(products) > 1 else text
            yield self.kept(name, f"{text} * {self.factor(p, turned=turned)}")
        else:
            yield f"{name} = {text}"
            yield f"same_{p.name} = tl.sum(tl.where({p.xs}[:, None] == {p.ys}[None, :], {name}, 0.0), axis=1)"
            yield self.kept(name, f"{name} * {self.factor(p)}")

    def _asks(self, p: Pairing) -> bool:
        return p.x.startswith("query_")

    def cotangents_of_reads(self) -> Iterator[str]:
        """Cotangents of what was read as operands of products, and what signs do to cotangents."""
        f = self.f
        if f.signed:
            for m in f.members:
                yield f"d_{m.state} = {self._flip_all(m)} * d_{m.state}"
                self.narrow.discard(f"d_{m.state}")
            for read in f.reads:
                if read.over == "column":
                    yield f"d_{read.name} = d_{read.name} * {self._flip(read)}"
        # of the state after the chunk, as keys need it even where that of the state before is there already
        for m in f.members:
            text = f"d_{m.state}"
            yield f"after_{m.state} = {text}" if text in self.narrow else self.kept(f"after_{m.state}", text, m.vector)
            self.narrow |= {f"after_{m.state}"} if text in self.narrow else set()
        if self.f.operand != "tl.float32":
            for r in self.f.reads:
                if r.over == "column" or not self.f.members[r.member].vector:
                    yield self.kept(f"d_{r.name}", f"d_{r.name}")

    def cotangents_of_queries(self) -> Iterator[str]:
        """Cotangents of queries: by way of the state, then of the chunk's own writes."""
        f = self.f
        for q in f.queries:
            reads = [r for r in f.reads if r.query == q.name]
            g = "upto" if q.before else "until"
            terms = []
            for r in reads:
                m = f.members[r.member]
                if q.over == "mix":
                    terms.append(self.with_state(f"d_{r.name}", g, m.state, m))
                else:
                    terms.append(self.dot(f"({self.from_start(f'd_{r.name}', g)})", m.state))
            yield f"d_{q.name} = {' + '.join(terms)}"
        for p in self._asked():
            yield from self.matrix_back(p)

    def moved_queries(self) -> Iterator[str]:
        """Their rest, what decays get of them, and what they were before signs were folded in. The last products stand
        behind what is loaded again: sums of both are then taken in the products' layout, without converting tiles."""
        yield from self.spread_x(self._asked())
        for r in self.f.reads:
            if r.over == "column":
                yield from self.products([renamed(p, f"d_{r.name}") for p, _ in self._column_pairings(r)])
                for p, value in self._column_pairings(r):
                    yield f"d_{r.query} += {self.dot(f'd_{r.name}_{p.y}', value)}"
        tile = "" if self.channel else "[:, None]"
        mixed = [q for q in self.f.queries if q.over == "mix"]
        if self.f.decay != "none":
            for q in mixed:
                yield f"moved_{q.name} = {self._along(f'{self._late_query(q.name)} * d_{q.name}')}"
        yield from self._same_x()
        if self.f.signed:
            yield from (f"d_{q.name} = d_{q.name} * {'flip_upto' if q.before else 'flip'}{tile}" for q in mixed)

    def _products_back(self, p: Pairing) -> list[tuple[str, str, Memory]]:
        """The cotangents on x's side and values on y's whose products are the cotangent of a pairing's matrix."""
        f = self.f
        if self._asks(p):
            found = [(f"d_{r.name}", r.member) for r in f.reads if r.over == "mix" and r.query == p.x]
        else:
            found = [(f"d_value_{n}", n) for n in range(len(f.members))]
        return [(d, value, f.members[n]) for d, n in found for key, value, _ in self._wrote(n) if key == p.y]

    def _solved(self) -> list[Pairing]:
        return [p for p in (*self.solves, *self.overlaps) if self._products_back(p)]

    def cotangents_of_erases(self) -> Iterator[str]:
        """Cotangents of erase keys and scales: by way of the state, then of the chunk's own writes."""
        f = self.f
        if not self.rows:
            return
        terms = [self.with_state(f"d_value_{n}", "seen", m.state, m) for n, m in enumerate(f.members)]
        yield f"d_erase = {' + '.join(terms)}"
        for p in self._solved():
            yield from self.matrix_back(p)
            if not self.channel:
                yield from self.spread_x([p])
        if self.channel:
            yield from self.spread_x(self._solved())
        if any(f.reader):
            yield from parted("d_erase", "d_erase", self.rows)
        for i, scaled in enumerate(f.scale):
            if f.signed and f.reader[i]:
                yield f"d_erase_{i} = d_erase_{i} * flip_seen_{i}"
            if scaled:
                yield f"d_scale_{i} = tl.sum(late_erase_{i} * d_erase_{i}, axis=1)"
                yield f"d_erase_{i} = scale_{i}[:, None] * d_erase_{i}"

    def cotangents_of_keys(self) -> Iterator[str]:
        """Cotangents of keys, what they are by way of the state apart: from the chunk's own reads."""
        asked, solved = self._asked(), self._solved()
        yield from (f"d_{key} = tl.zeros({key}.shape, tl.float32)" for key, _ in self._keys())
        if self.channel:
            for p in (*asked, *solved):
                yield from self.matrix_back(p, turned=True)
            yield from self.spread_y([*asked, *solved])
        else:
            for p in (*asked, *solved):
                yield from self.matrix_back(p, turned=True)
                yield from self.spread_y([p])
        yield from self._through_columns()
        if self.f.decay != "none":
            yield from (f"wrote_{key} = {self._along(f'{self._late(key)} * d_{key}')}" for key, _ in self._keys())

    def cotangents_within_steps(self) -> Iterator[str]:
        """What keys get of their own steps' reads; then their cotangents by substep, before signs were folded in."""
        rows = self.rows > 0 and self.f.decay != "none"
        yield from self._same_y()
        yield from self._same_columns()
        for name, there in (("d_key", self.rows > 0), ("wrote_key", rows), ("handed_key", rows)):
            if there:
                yield from parted(name, name, self.rows)
        if self.f.signed:
            for i in range(len(self.f.links)):
                yield f"d_key_{i} = d_key_{i} * flip_written_{i}"
            for j in range(len(self.f.given)):
                yield f"d_write_{j} = d_write_{j} * flip{'' if self.channel else '[:, None]'}"

    def cotangents_from_end(self) -> Iterator[str]:
        """Cotangents of keys by way of the state after the chunk."""
        f = self.f
        for key, g in self._keys():
            terms = [
                self.outer_state(value, f"after_{m.state}", m)
                for n, m in enumerate(f.members)
                for k, value, _ in self._wrote(n)
                if k == key
            ]
            yield f"end_{key} = {self.to_end('(' + ' + '.join(terms) + ')', g)}"
            if f.decay != "none":
                yield f"handed_{key} = {self._along(f'{self._late(key)} * end_{key}')}"
            yield f"d_{key} += end_{key}"

    def _late(self, key: str) -> str:
        """Rows that were computed again, with their signs; those of several substeps are still there as one tile."""
        if key == "key":
            flip = " * flip_written_0" if self.f.signed else ""
            return f"late_key_0{flip}" if self.rows == 1 else key
        flip = f" * flip{'' if self.channel else '[:, None]'}" if self.f.signed else ""
        return f"late_{key}{flip}"

    def _late_query(self, name: str) -> str:
        """A query that was computed again, with its signs."""
        before = any(q.before for q in self.f.queries if q.name == name)
        flip = f" * {'flip_upto' if before else 'flip'}{'' if self.channel else '[:, None]'}" if self.f.signed else ""
        return f"late_{name}{flip}"

    def outer_state(self, value: str, state: str, m: Memory) -> str:
        return f"{value}[:, None] * {state}[None, :]" if m.vector else self.dot(value, f"tl.trans({state})")

    def _keys(self) -> list[tuple[str, str]]:
        found = [("key", "written")] if self.rows else []
        return found + [(f"write_{j}", "until") for j in range(len(self.f.given))]

    def _along(self, text: str) -> str:
        """A product per channel, summed over channels where the decay is a scalar."""
        return text if self.channel else f"tl.sum({text}, axis=1)"

    def _through_columns(self) -> Iterator[str]:
        for read in self.f.reads:
            if read.over == "column":
                pairings = self._column_pairings(read)
                if self._column_apart(read):
                    pairings = [(p.strict, value) for p, value in pairings]
                yield from self._through_column(read, pairings)

    def _through_column(self, read: ReadOut, pairings: list[tuple[Pairing, str]]) -> Iterator[str]:
        """Cotangents of keys from what a query over the column reads."""
        for p, value in pairings:
            mask = p.mask(turned=True)
            yield f"score_{p.turned} = tl.where({mask}, {self.dot(value, f'tl.trans({read.query})')}, 0.0)"
        if not self.channel:
            for p, _ in pairings:
                scores = f"(score_{p.turned} * {self.factor(p, turned=True)})"
                yield f"d_{p.y} += {self.dot(scores, f'd_{read.name}')}"
            return

        def body(level: Level, chosen: Sequence[Pairing]) -> Iterator[str]:
            for p in chosen:
                x, _ = self._side(renamed(p, f"d_{read.name}"), "x", level)
                _, fy = self._side(p, "y", level)
                picked = f"tl.where({level.mask(p, turned=True)}, score_{p.turned}, 0.0)"
                yield f"d_{p.y} += {self.dot(picked, x)}{fy}"

        yield from self.by_level([p for p, _ in pairings], body)

    def _same_columns(self) -> Iterator[str]:
        """Cotangents of keys from what reads over the column take from their own step's writes."""
        for read in self.f.reads:
            if read.over == "column" and self._column_apart(read):
                for p, value in self._column_pairings(read):
                    yield f"d_{p.y} += tl.sum({read.query}.to(tl.float32) * {value}, axis=1)[:, None] * d_{read.name}"

    def values_apart(self) -> Iterator[str]:
        """Cotangents of what rows were given, by substep."""
        for n, m in enumerate(self.f.members):
            if self.rows and self.has_value(m):
                yield from parted("d_value", f"d_value_{n}", self.rows, f"_{n}")

    def update_back_reads(self) -> Iterator[str]:
        """The cotangents of the states before the chunk without what rows asked, early: tiles then live shorter."""
        for n, m in enumerate(self.f.members):
            terms = [self.decayed(f"d_{m.state}", m)]
            for r in (r for r in self.f.reads if r.member == n):
                g = "upto" if r.before else "until"
                if r.over == "mix":
                    terms.append(self.at_start(r.query, g, f"d_{r.name}", m))
                else:
                    terms.append(self.dot(f"tl.trans({self.from_start(f'd_{r.name}', g)})", r.query))
            yield f"d_{m.state} = {' + '.join(terms)}"

    def update_back(self) -> Iterator[str]:
        """What rows asked of them."""
        for n, m in enumerate(self.f.members if self.rows else ()):
            yield f"d_{m.state} += {self.at_start('erase', 'seen', f'd_asked_{n}', m)}"
