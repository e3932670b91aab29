"""The chunk algorithm as Triton text: decays, pairwise products, the solve, read-outs and all their gradients.

Row i of a tile is a step of the chunk, or one of the rows of a step that read the state. Decays are cumulated in base 2
from the start of the chunk: ``until`` and ``upto`` a step with and without itself, ``written`` and ``seen`` where a row
writes and where it reads. Signs of decays are folded into keys, erase keys and queries (``flip``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..lower.chunk import ChunkFacts, Memory, ReadOut


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

    def mask(self, *, turned: bool = False) -> str:
        a, b = ("[None, :]", "[:, None]") if turned else ("[:, None]", "[None, :]")
        text = f"({self.xs}{a} {self.op} {self.ys}{b})"
        if self.linked:
            text = f"({text} | (({self.xs}{a} == {self.ys}{b}) & (link{a} > link{b})))"
        return text


@dataclass(frozen=True)
class Level:
    """Pairs of steps on two sides of a border: ``setup`` computes it, ``mask`` picks the pairs."""

    setup: tuple[str, ...]
    border: str
    test: str

    def mask(self, p: Pairing, *, turned: bool = False) -> str:
        a, b = ("[None, :]", "[:, None]") if turned else ("[:, None]", "[None, :]")
        return self.test.format(x=f"{p.xs}{a}", y=f"{p.ys}{b}", sub=f"sub{b}")


class ChunkPrinter:
    """Prints the blocks of one kernel. Every method yields lines; names in them are those of the module's docstring."""

    def __init__(self, facts: ChunkFacts) -> None:
        self.f = facts
        self.channel, self.scalar = facts.decay == "channel", facts.decay == "scalar"
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

    # ------------------------------------------------------------ words

    def dot(self, x: str, y: str) -> str:
        if self.f.operand == "tl.float32":
            return f'tl.dot({x}, {y}, input_precision="{self.f.precision}")'
        return f"tl.dot({self._operand(x)}, {self._operand(y)})"

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

    def of_state(self, x: str, g: str, state: str, m: Memory) -> str:
        """What vectors read of a state that has decayed until ``g``."""
        if self.channel:
            x = f"{x} * tl.exp2({g})"
        text = f"tl.sum({x} * {state}[None, :], axis=1)" if m.vector else self.dot(x, state)
        return f"{text} * tl.exp2({g}){'' if m.vector else '[:, None]'}" if self.scalar else text

    def with_state(self, d: str, g: str, state: str, m: Memory) -> str:
        """Cotangents of vectors from those of what they read of a state, decayed until ``g``."""
        text = f"{d}[:, None] * {state}[None, :]" if m.vector else self.dot(d, f"tl.trans({state})")
        return text + self._scale(g)

    def _scale(self, g: str) -> str:
        return f" * tl.exp2({g})" if self.channel else f" * tl.exp2({g})[:, None]" if self.scalar else ""

    def from_start(self, x: str, g: str) -> str:
        """A vector per row, decayed from the start of the chunk until ``g``."""
        return x + self._scale(g)

    def to_end(self, x: str, g: str) -> str:
        """A vector per row, decayed from ``g`` to the end of the chunk."""
        if self.channel:
            return f"{x} * tl.exp2(total[None, :] - {g})"
        return f"{x} * tl.exp2(total - {g})[:, None]" if self.scalar else x

    def decayed(self, state: str, m: Memory) -> str:
        """A state, decayed over the whole chunk."""
        if self.f.decay == "none":
            return state
        return f"tl.exp2(total){'[:, None]' if self.channel and not m.vector else ''} * {state}"

    def factor(self, p: Pairing, *, turned: bool = False) -> str:
        """How much pairs of rows have decayed, zero where they do not see each other."""
        if self.f.decay == "none":
            return f"tl.where({p.mask(turned=turned)}, 1.0, 0.0)"
        between = f"{p.gx}[None, :] - {p.gy}[:, None]" if turned else f"{p.gx}[:, None] - {p.gy}[None, :]"
        return f'tl.exp2(tl.where({p.mask(turned=turned)}, {between}, -float("inf")))'

    # ------------------------------------------------------------ rows and decays

    def decays(self) -> Iterator[str]:
        """Cumulated decays and signs, and the rows of all substeps in the order of time."""
        f = self.f
        # counted from the start of the sequence: what compares rows would otherwise be kept in registers all along
        yield "row = i + o_rows"
        if self.rows > 1:
            yield f"micro = i * {self.rows} + tl.arange(0, {f.chunk * self.rows})"
            yield f"step, sub = micro // {self.rows}, micro % {self.rows}"
            yield f"link = {self._table(f.links)}"
        if f.decay != "none":
            for log in filter(None, f.logs):
                yield f"base_{log} = _bounded({log})"
            parts = [f"base_{log}" for log in filter(None, f.logs)]
            yield f"log = {' + '.join(parts)}"
            yield "until = tl.cumsum(log, axis=0)"
            yield "upto = until - log"
            yield "total = tl.sum(log, axis=0)"
            yield from self._moments("written", "upto", "base_", f.logs, post=[True] * len(f.links))
            yield from self._moments("seen", "upto", "base_", f.logs, post=f.post)
        if f.signed:
            yield from self._signs()
        yield from self._rows("key", [True] * len(f.links))
        yield from self._rows("erase", f.reader)
        yield from self._rows("scale", f.scale)
        yield from (
            self.kept(f"write_{j}", f"write_{j}") for j in range(len(f.given)) if self.f.operand != "tl.float32"
        )

    def _table(self, numbers: Sequence[int]) -> str:
        """A number for each row by its place within the step."""
        text = "0"
        for i, number in enumerate(numbers):
            if number:
                text = f"tl.where(sub == {i}, {number}, {text})"
        return text if text != "0" else "sub * 0"

    def _moments(
        self, target: str, start: str, prefix: str, names: Sequence[str | None], post: Sequence[bool]
    ) -> Iterator[str]:
        """For each row what was cumulated until its moment within the step."""
        if not self.rows:
            return
        moments = []
        for i, link in enumerate(self.f.links):
            past = [
                f"{prefix}{n}"
                for at, n in enumerate(names)
                if n is not None and (at < link or (post[i] and at == link))
            ]
            whole = len(past) == len([n for n in names if n is not None])
            moments.append("until" if whole and prefix == "base_" else " + ".join([start, *past]))
        for i, text in enumerate(moments):
            if self.rows > 1 or target != text:
                yield f"{target}_{i} = {text}"
        if self.rows == 1:
            yield f"{target} = {target}_0"
        else:
            yield f"{target} = {self._interleaved([f'{target}_{i}' for i in range(len(moments))], self.channel)}"

    def _interleaved(self, names: Sequence[str], tile: bool) -> str:
        full = [*names, *([f"tl.zeros_like({names[0]})"] * (self.rows - len(names)))]
        return _woven(full, tile)

    def _signs(self) -> Iterator[str]:
        """Running signs, exact: the parity of how many negative decays came before."""
        f = self.f
        for sign in filter(None, f.signs):
            yield f"odd_{sign} = ({sign} < 0.0).to(tl.int32)"
        yield f"odd = {' + '.join(f'odd_{sign}' for sign in filter(None, f.signs))}"
        yield "odd_until = tl.cumsum(odd, axis=0)"
        yield "odd_upto = odd_until - odd"
        yield "flip = _parity(odd_until)"
        yield "flip_upto = _parity(odd_upto)"
        yield "flip_all = _parity(tl.sum(odd, axis=0))"
        tile = "" if self.channel else "[:, None]"
        for i, link in enumerate(f.links):
            for word, post in (("written", True), ("seen", f.post[i])):
                past = [
                    f"odd_{s}" for at, s in enumerate(f.signs) if s is not None and (at < link or (post and at == link))
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
        text = chosen[0] if self.rows == 1 else self._interleaved(chosen, tile)
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

    def has_value(self, m: Memory) -> bool:
        return any(m.rows)

    # ------------------------------------------------------------ pairwise products

    def levels(self, pairings: Sequence[Pairing]) -> Iterator[Level]:
        """Decays per channel: pairs of a later block of steps and the block before it, both decayed to the border
        between them, so that no factor exceeds 1; then pairs within one step."""
        rows = self.rows > 1
        size = self.f.chunk // 2
        while size >= 1:
            setup = [f"border = _border(until, {size})"]
            setup += [f"border_rows = {_woven(['border'] * self.rows, True)}"] if rows else []
            yield Level(tuple(setup), "border", f"_apart({{x}}, {{y}}, {size})")
            size //= 2
        linked = len(set(self.f.links)) > 1
        if not linked:
            if any(p.op == ">=" for p in pairings):
                yield Level(
                    ("border = until",) + (("border_rows = written",) if rows else ()), "border", "({x} == {y})"
                )
            return
        for i in range(len(self.f.links)):
            setup = [f"border = written_{i}", f"border_rows = {_woven([f'written_{i}'] * self.rows, True)}"]
            yield Level(tuple(setup), "border", f"(({{x}} == {{y}}) & ({{sub}} == {i}))")

    def _side(self, p: Pairing, which: str) -> tuple[str, str]:
        """A side of a pairing decayed to the border, and the factor of that."""
        name, g, at = (p.x, p.gx, p.xs) if which == "x" else (p.y, p.gy, p.ys)
        border = "border_rows" if at == "step" else "border"
        gap = f"{g} - {border}" if which == "x" else f"{border} - {g}"
        text = f"tl.exp2(tl.minimum({gap}, 0.0))"
        return f"{name} * {text}", text

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
        for level in self.levels(pairings):
            yield from level.setup
            for p in pairings:
                x, y = self._side(p, "x")[0], self._side(p, "y")[0]
                left, right = (y, x) if turned else (x, y)
                mask = f"{level.mask(p, turned=turned)} & {p.mask(turned=turned)}"
                target = p.turned if turned else p.name
                yield f"{target} += tl.where({mask}, {self.dot(left, f'tl.trans({right})')}, 0.0)"

    def _count(self, at: str) -> int:
        return self.f.chunk * (self.rows if at == "step" else 1)

    def spread_x(self, pairings: Sequence[Pairing]) -> Iterator[str]:
        """Adds to the cotangents of x what comes from those of the products, ``d_x_y``."""
        if not self.channel:
            for p in pairings:
                yield f"d_{p.x} += {self.dot(f'd_{p.name}', p.y)}"
            return
        for level in self.levels(pairings):
            yield from level.setup
            for p in pairings:
                (_, fx), (y, _) = self._side(p, "x"), self._side(p, "y")
                picked = f"tl.where({level.mask(p)} & {p.mask()}, d_{p.name}, 0.0)"
                yield f"d_{p.x} += {self.dot(picked, y)} * {fx}"

    def spread_y(self, pairings: Sequence[Pairing]) -> Iterator[str]:
        """Adds to the cotangents of y what comes from those of the transposed products, ``d_y_x``."""
        if not self.channel:
            for p in pairings:
                yield f"d_{p.y} += {self.dot(f'd_{p.turned}', p.x)}"
            return
        for level in self.levels(pairings):
            yield from level.setup
            for p in pairings:
                (x, _), (_, fy) = self._side(p, "x"), self._side(p, "y")
                picked = f"tl.where({level.mask(p, turned=True)} & {p.mask(turned=True)}, d_{p.turned}, 0.0)"
                yield f"d_{p.y} += {self.dot(picked, x)} * {fy}"

    # ------------------------------------------------------------ forward

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
        for p, value in pairings:
            yield f"score_{p.name} = tl.where({p.mask()}, {self.dot(read.query, f'tl.trans({value})')}, 0.0)"
        if not self.channel:
            for p, _ in pairings:
                yield f"{read.name} += {self.dot(f'(score_{p.name} * {self.factor(p)})', p.y)}"
        else:
            for level in self.levels([p for p, _ in pairings]):
                yield from level.setup
                for p, _ in pairings:
                    _, fx = self._side(p, "x")
                    y, _ = self._side(p, "y")
                    picked = f"tl.where({level.mask(p)}, score_{p.name}, 0.0)"
                    yield f"{read.name} += {self.dot(picked, y)} * {fx}"
        if self.f.signed:
            yield f"{read.name} = {read.name} * {self._flip(read)}"

    def _flip(self, read: ReadOut) -> str:
        return ("flip_upto" if read.before else "flip") + ("" if self.channel else "[:, None]")

    def update(self) -> Iterator[str]:
        """The states after the chunk."""
        for n, m in enumerate(self.f.members):
            terms = [self.decayed(m.state, m)]
            terms += [self.into_state(f"({self.to_end(key, g)})", value, m) for key, value, g in self._wrote(n)]
            text = " + ".join(terms)
            if self.f.signed:
                text = f"{self._flip_all(m)} * ({text})"
            yield f"{m.state} = {text}"

    def _flip_all(self, m: Memory) -> str:
        return "flip_all[:, None]" if self.channel and not m.vector else "flip_all"

    # ------------------------------------------------------------ backward

    def cotangents_of_writes(self) -> Iterator[str]:
        """Cotangents of everything that was written, the solve taken back; those of reads over the column first."""
        f = self.f
        mixed = [r for r in f.reads if r.over == "mix"]
        asked = [p for p in self.asks if self._products_back(p)]
        for p in asked if not self.channel else ():
            # side by side, as they share the factor of how much pairs have decayed
            yield from self.products([p], turned=True)
            yield from self.matrix_back(p, turned=True)
        if self.channel:
            yield from self.products(asked, turned=True)
        columns = [(read, self._column_pairings(read)) for read in f.reads if read.over == "column"]
        for read, pairings in columns:
            yield from self.products([_renamed(p, f"d_{read.name}") for p, _ in pairings], turned=True)
        for n, m in enumerate(f.members):
            for key, value, g in self._wrote(n):
                terms = [self._from_end(f"({self.to_end(key, g)})", f"d_{m.state}", m)]
                terms += [self.apply(f"{key}_{r.query}", f"d_{r.name}", m) for r in mixed if r.member == n]
                terms += [
                    self.dot(f"{p.y}_d_{read.name}", read.query)
                    for read, pairings in columns
                    if read.member == n
                    for p, _ in pairings
                    if p.y == key
                ]
                yield f"d_{value} = {' + '.join(terms)}"
        if self.rows:
            yield from self.products(self.overlaps, turned=True)
            for n, m in enumerate(f.members):
                yield f"d_value_{n} = {self.apply('inverse_t', f'd_new_{n}', m)}"
                scale = f"scale{'' if m.vector else '[:, None]'} * " if f.scaled else ""
                yield self.kept(f"d_asked_{n}", f"{scale}d_value_{n}", m.vector)
                for j, p in self._given(n, self.overlaps):
                    yield f"d_given_{j}_{n} += {self.apply(p.turned, f'd_asked_{n}', m)}"

    def matrix_back(self, p: Pairing, *, turned: bool = False) -> Iterator[str]:
        """The cotangent of a pairing's matrix, with the factor of its decays where that is one per pair."""
        products = self._products_back(p)
        if turned and p not in self.asks:  # what reaches a key has passed the scale
            products = [(d.replace("d_value", "d_asked"), value, m) for d, value, m in products]
        text = " + ".join(self.outer(value, d, m) if turned else self.outer(d, value, m) for d, value, m in products)
        name = f"d_{p.turned if turned else p.name}"
        if self.channel:
            yield f"{name} = {text}"
        else:
            text = f"({text})" if len(products) > 1 else text
            yield self.kept(name, f"{text} * {self.factor(p, turned=turned)}")

    def cotangents_of_reads(self) -> Iterator[str]:
        """Cotangents of what was read as operands of products, and what signs do to cotangents."""
        f = self.f
        if f.signed:
            for m in f.members:
                yield f"d_{m.state} = {self._flip_all(m)} * d_{m.state}"
            for read in f.reads:
                if read.over == "column":
                    yield f"d_{read.name} = d_{read.name} * {self._flip(read)}"
        if self.f.operand != "tl.float32":
            for r in self.f.reads:
                if r.over == "column" or not self.f.members[r.member].vector:
                    yield self.kept(f"d_{r.name}", f"d_{r.name}")

    def _from_end(self, x: str, state: str, m: Memory) -> str:
        return f"tl.sum({x} * {state}[None, :], axis=1)" if m.vector else self.dot(x, state)

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
        asked = [p for p in self.asks if self._products_back(p)]
        for p in asked:
            yield from self.matrix_back(p)
        yield from self.spread_x(asked)
        for r in f.reads:
            if r.over == "column":
                yield from self.products([_renamed(p, f"d_{r.name}") for p, _ in self._column_pairings(r)])
                for p, value in self._column_pairings(r):
                    yield f"d_{r.query} += {self.dot(f'd_{r.name}_{p.y}', value)}"
        if f.decay != "none":
            for q in f.queries:
                if q.over == "mix":
                    yield f"moved_{q.name} = {self._along(f'{q.name} * d_{q.name}')}"
        if f.signed:
            tile = "" if self.channel else "[:, None]"
            for q in f.queries:
                if q.over == "mix":
                    yield f"d_{q.name} = d_{q.name} * {'flip_upto' if q.before else 'flip'}{tile}"

    def _products_back(self, p: Pairing) -> list[tuple[str, str, Memory]]:
        """The cotangents on x's side and values on y's whose products are the cotangent of a pairing's matrix."""
        f = self.f
        if p in self.asks:
            found = [(f"d_{r.name}", r.member) for r in f.reads if r.over == "mix" and r.query == p.x]
        else:
            found = [(f"d_value_{n}", n) for n in range(len(f.members))]
        return [(d, value, f.members[n]) for d, n in found for key, value, _ in self._wrote(n) if key == p.y]

    def cotangents_of_keys(self) -> Iterator[str]:
        """Cotangents of erase keys and keys: by way of the state, then of the chunk's own reads."""
        f = self.f
        solved = [p for p in (*self.solves, *self.overlaps) if self._products_back(p)]
        if self.rows:
            terms = [self.with_state(f"d_value_{n}", "seen", m.state, m) for n, m in enumerate(f.members)]
            yield f"d_erase = {' + '.join(terms)}"
            for p in solved:
                yield from self.matrix_back(p)
            yield from self.spread_x(solved)
        for key, g in self._keys():
            terms = [
                self.outer_state(value, f"d_{m.state}", m)
                for n, m in enumerate(f.members)
                for k, value, _ in self._wrote(n)
                if k == key
            ]
            total = " + ".join(terms)
            yield f"d_{key} = {self.to_end(f'({total})', g)}"
        if f.decay != "none":
            yield from self._border()
        asked = [p for p in self.asks if self._products_back(p)]
        for p in (*(asked if self.channel else ()), *solved):
            yield from self.matrix_back(p, turned=True)
        yield from self.spread_y([*asked, *solved])
        yield from self._through_columns()
        if f.scaled:
            yield "d_scale = tl.sum(erase * d_erase, axis=1)"
            yield "d_erase = scale[:, None] * d_erase"
        if self.rows:
            yield from _parted("d_key", "d_key", self.rows)
            if any(f.reader):
                yield from _parted("d_erase", "d_erase", self.rows)
            if f.scaled:
                yield from _parted("d_scale", "d_scale", self.rows)

    def _border(self) -> Iterator[str]:
        """The part of every decay's cotangent in what the chunk hands on."""
        parts = [f"tl.sum({self._along(f'{key} * d_{key}')}, axis=0)" for key, _ in self._keys()]
        for m in self.f.members:
            product = f"{m.state} * d_{m.state}"
            whole = product if m.vector else f"tl.sum({product}, axis=1)"
            parts.append(f"tl.exp2(total) * {whole if self.channel else f'tl.sum({whole}, axis=0)'}")
        yield f"border_log = {' + '.join(parts)}"

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
            if read.over != "column":
                continue
            pairings = self._column_pairings(read)
            for p, value in pairings:
                mask = p.mask(turned=True)
                yield f"score_{p.turned} = tl.where({mask}, {self.dot(value, f'tl.trans({read.query})')}, 0.0)"
            if not self.channel:
                for p, _ in pairings:
                    scores = f"(score_{p.turned} * {self.factor(p, turned=True)})"
                    yield f"d_{p.y} += {self.dot(scores, f'd_{read.name}')}"
                continue
            for level in self.levels([p for p, _ in pairings]):
                yield from level.setup
                for p, _ in pairings:
                    x, _ = self._side(_renamed(p, f"d_{read.name}"), "x")
                    _, fy = self._side(p, "y")
                    picked = f"tl.where({level.mask(p, turned=True)}, score_{p.turned}, 0.0)"
                    yield f"d_{p.y} += {self.dot(picked, x)} * {fy}"

    def cotangents_of_decays(self) -> Iterator[str]:
        """Cotangents of logarithms: what was read less what was written, from each step to the end of the chunk."""
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
                value = f"{read.name} * {self._flip(read)}" if f.signed else read.name
                (before if read.before else after).append(self._along(f"{value} * d_{read.name}"))
        after += [f"-{self._along_negative(f'write_{j} * d_write_{j}')}" for j in range(len(f.given))]
        for i in range(len(f.links)):
            key, erase = ("key", "erase") if self.rows == 1 else (f"key_{i}", f"erase_{i}")
            yield f"wrote_{i} = {self._along(f'{key} * d_key_{i}')}"
            if f.reader[i]:
                yield f"read_at_{i} = {self._along(f'{erase} * d_erase_{i}')}"
        rows = [f"read_at_{i} - wrote_{i}" if f.reader[i] else f"-wrote_{i}" for i in range(len(f.links))]
        yield f"moved = {_signed_sum([*after, *before, *rows])}"
        yield "later = tl.cumsum(moved, axis=0, reverse=True) - moved + border_log"
        for number, log in enumerate(f.logs):
            if log is None:
                continue
            own = list(after)
            for i, link in enumerate(f.links):
                if link >= number:
                    own.append(f"-wrote_{i}")
                if f.reader[i] and (link > number or (link == number and f.post[i])):
                    own.append(f"read_at_{i}")
            yield f"d_{log} = tl.where({log} * 1.4426950408889634 > -150.0, {_signed_sum(['later', *own])}, 0.0)"

    def _along_negative(self, text: str) -> str:
        return f"({text})" if self.channel else self._along(text)

    def values_apart(self) -> Iterator[str]:
        """Cotangents of what rows were given, by substep."""
        for n, m in enumerate(self.f.members):
            if self.rows and self.has_value(m):
                yield from _parted("d_value", f"d_value_{n}", self.rows, f"_{n}")

    def unflipped(self) -> Iterator[str]:
        """Cotangents of keys and erase keys before their signs were folded in."""
        f = self.f
        if not f.signed:
            return
        tile = "" if self.channel else "[:, None]"
        for i in range(len(f.links)):
            yield f"d_key_{i} = d_key_{i} * flip_written_{i}"
            if f.reader[i]:
                yield f"d_erase_{i} = d_erase_{i} * flip_seen_{i}"
        for j in range(len(f.given)):
            yield f"d_write_{j} = d_write_{j} * flip{tile}"

    def update_back(self) -> Iterator[str]:
        """The cotangents of the states before the chunk."""
        for n, m in enumerate(self.f.members):
            terms = [self.decayed(f"d_{m.state}", m)]
            for r in self.f.reads:
                if r.member != n:
                    continue
                g = "upto" if r.before else "until"
                if r.over == "mix":
                    terms.append(self.into_state(f"({self.from_start(r.query, g)})", f"d_{r.name}", m))
                else:
                    terms.append(self.dot(f"tl.trans({self.from_start(f'd_{r.name}', g)})", r.query))
            if self.rows:
                terms.append(self.into_state(f"({self.from_start('erase', 'seen')})", f"d_asked_{n}", m))
            yield f"d_{m.state} = {' + '.join(terms)}"


def chunk_blocks(facts: ChunkFacts, template: str, train: bool, first: str) -> dict[str, list[str]]:
    """The blocks of a chunk kernel's template; ``first``: the condition for writing what several tiles share."""
    p = ChunkPrinter(facts)
    side = facts.chunk * facts.substeps
    lines = f"tl.arange(0, {side})" if facts.substeps > 1 else "o_rows"
    place = f"p_inverse_checkpoint + {lines}[:, None] * {side} + {lines}[None, :]"
    turned = f"p_inverse_checkpoint + {lines}[None, :] * {side} + {lines}[:, None]"
    decays = list(p.decays())
    if template == "chunk_forward":
        keep = [f"tl.store({place}, inverse{f', mask={first}' if first else ''})"] if facts.substeps and train else []
        return {
            "decays": decays,
            "inverse": [*p.inverse(), *keep],
            "solve": [*p.values(), *p.solution()],
            "reads": [*p.queries(), *p.read_outs()],
            "update": list(p.update()),
        }
    kept = [f"inverse = tl.load({place})", f"inverse_t = tl.load({turned})"] if facts.substeps else []
    p.narrow |= {"inverse", "inverse_t"}
    return {
        "state": [p.kept(m.state, m.state) for m in facts.members if not m.vector and p.f.operand != "tl.float32"],
        "decays": decays,
        "solve": [*kept, *p.values(), *p.solution()],
        "reads": [*p.queries(), *p.read_outs(facts.asked)],
        "queries": [*p.cotangents_of_reads(), *p.cotangents_of_queries()],
        "writes": [*p.cotangents_of_writes(), *p.values_apart()],
        "keys": list(p.cotangents_of_keys()),
        "update": list(p.update_back()),
        "logs": [*p.cotangents_of_decays(), *p.unflipped()],
    }


# ---------------------------------------------------------------- text


def _cast(x: str, operand: str) -> str:
    bare = x.isidentifier() or (x.startswith(("(", "tl.trans(")) and _closed(x))
    return f"{x}.to({operand})" if bare else f"({x}).to({operand})"


def _closed(x: str) -> bool:
    """Whether the first bracket closes at the end."""
    depth = 0
    for at, letter in enumerate(x):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and letter == ")":
            return at == len(x) - 1
    return False


def _renamed(p: Pairing, x: str) -> Pairing:
    return Pairing(x, p.gx, p.xs, p.y, p.gy, p.ys, p.op, p.linked)


def _woven(names: Sequence[str], tile: bool) -> str:
    """An expression for tiles interleaved row by row: the rows of all, in turn."""
    if len(names) == 1:
        return names[0]
    weave = "_interleave_rows" if tile else "tl.interleave"
    return f"{weave}({_woven(names[0::2], tile)}, {_woven(names[1::2], tile)})"


def _parted(target: str, source: str, count: int, ending: str = "") -> Iterator[str]:
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


def _signed_sum(parts: Sequence[str]) -> str:
    if not parts:
        return "0.0"
    first, *rest = parts
    return first + "".join(f" - {p[1:]}" if p.startswith("-") else f" + {p}" for p in rest)
