"""Numbers that multiply what a read has read move into the vector that it is read with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..ir.builder import Builder
from ..ir.program import Instr, depends_on, live
from ..ir.types import Axes
from .affine import AffineForm
from .readout import Read


def absorbed(form: AffineForm) -> AffineForm:
    """The same normal form with numbers that multiply a result of a read in what it is read with.

    Their gradients then come with that of the vector, so that the results need not be kept for them.
    """
    builder = Builder(form.body)
    links = tuple(
        replace(link, pairs=tuple(
            pair if pair.read is None or pair.scale is None
            else replace(pair, read=builder.mul(pair.read, pair.scale), scale=None)
            for pair in link.pairs
        ))
        for link in form.links
    )  # fmt: skip
    outputs, reads = dict(form.outputs), []
    for read in form.reads:
        leaf = next((p for p, i in enumerate(builder.body) if i.attrs == ("read", read.name)), None)
        factor = None if leaf is None else _factor(builder.body, leaf, outputs.values())
        while leaf is not None and factor is not None:
            product, scalar = factor
            query = builder.spread(builder.const(1.0), _over(form, read)) if read.query is None else read.query
            read = replace(read, query=builder.mul(query, scalar))
            outputs = {name: _replaced(builder, value, product, leaf) for name, value in outputs.items()}
            factor = _factor(builder.body, leaf, outputs.values())
        reads.append(read)
    return replace(form, body=tuple(builder.body), links=links, reads=tuple(reads), outputs=tuple(outputs.items()))


def _over(form: AffineForm, read: Read) -> Axes:
    """The axis that a read contracts."""
    member = next(m for m in form.members if m.state == read.state)
    axis = member.mix if read.over == "mix" else member.column
    assert axis is not None
    return (axis,)


def _factor(body: Sequence[Instr], leaf: int, roots: Iterable[int]) -> tuple[int, int] | None:
    """The product that alone uses a read's result, and its other factor, if that is a number that reads nothing."""
    needed = live(tuple(body), roots)
    users = [p for p in sorted(needed) if leaf in body[p].args]
    if len(users) != 1 or body[users[0]].op != "mul" or leaf in roots:
        return None
    (other,) = [arg for arg in body[users[0]].args if arg != leaf] or [leaf]
    if other != leaf and body[other].op == "broadcast":
        (other,) = body[other].args
    depends = depends_on(tuple(body), ("read",))
    return None if body[other].axes or depends[other] else (users[0], other)


def _replaced(builder: Builder, value: int, old: int, new: int) -> int:
    """A value in which another takes the place of one of its operands, near or far."""
    known = {old: new}
    for p in sorted(live(tuple(builder.body), (value,))):
        instr = builder.body[p]
        if p not in known:
            args = tuple(known[arg] for arg in instr.args)
            known[p] = p if args == instr.args else builder.emit(instr.op, args, instr.attrs, instr.axes)
    return known[value]
