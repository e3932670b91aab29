"""Kernel IR to Triton: the text of statements, addresses and signatures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from ..lower.kernel_ir import Coordinate, Kernel, Ref, Statement, Tensor
from ..lower.layout import ROWS, Label, Layout, identifier
from . import triton_packed
from .chunk import chunk_blocks
from .lines import Line
from .triton_math import OPERATIONS, SCANS, expression, number


def blocks(kernel: Kernel) -> dict[str, list[Line]]:
    """The printed blocks of a kernel, by the markers that stand for them in its template."""
    printed = {
        section: [Line(text, s.span) for s in statements for text in _statement(kernel.layout, s)]
        for section, statements in kernel.sections.items()
    }
    moving = [t for t in kernel.tensors if t.name in kernel.walked]
    sign = "-" if kernel.walk == "left" else ""
    printed["arguments"] = [Line(text) for text in _arguments(kernel)]
    printed["place"] = [Line(text) for text in _place(kernel)]
    printed["advance"] = [Line(f"p_{t.name} += {sign}{_stride(kernel.layout, t)}") for t in moving]
    printed["block"] = [Line(text) for text in _block(kernel)]
    written = [t for t in kernel.tensors if t.place == "checkpoint" and t.name not in kernel.walked]
    moves = [Line(f"p_{t.name} += {sign}heads * {_numel(kernel.layout, t)}") for t in written]
    printed["checkpoint"] = printed.get("checkpoint", []) + moves
    if "algorithm" in kernel.facts:
        facts = kernel.facts
        for name, lines in chunk_blocks(facts["algorithm"], facts["blocks"], facts["first"]).items():
            printed[name] = [*printed.get(name, []), *(Line(text) for text in lines)]
    for section in ("invariant", "initial", "step", "final"):
        printed.setdefault(section, [])
    if not printed["step"] and not printed["advance"]:
        printed["step"] = [Line("pass")]
    for section, text in (triton_packed.rows_at(kernel) if kernel.packed else {}).items():
        printed[section] = [Line(text), *printed[section]]
    late = _written_last(kernel)
    printed["final"] = [*(Line(_pointer(kernel, t)) for t in kernel.tensors if t.name in late), *printed["final"]]
    return printed


def _written_last(kernel: Kernel) -> set[str]:
    """Tensors that only the final section touches: their addresses take no registers during the loop."""
    touched = {
        section: {s.attrs[0].name for s in statements if s.op in ("load", "store")}
        for section, statements in kernel.sections.items()
    }
    others = {name for section, names in touched.items() if section != "final" for name in names}
    return touched.get("final", set()) - others


# ---------------------------------------------------------------- signature and addresses


def strides(tensor: Tensor) -> tuple[str, ...]:
    """The stride arguments of a strided tensor: sequence, step, head, then its own axes."""
    if not tensor.strided:
        return ()
    return tuple(f"{tensor.name}_s{which}" for which in ("b", "t", "h", *range(len(tensor.axes))))


def constants(kernel: Kernel) -> tuple[str, ...]:
    """The compile-time arguments: numbers of heads."""
    return tuple(dict.fromkeys(("heads", *(t.heads for t in kernel.tensors))))


def _arguments(kernel: Kernel) -> Iterator[str]:
    for tensor in kernel.tensors:
        yield f"{tensor.name}_ptr,"
    for tensor in kernel.tensors:
        if tensor.strided:
            yield ", ".join(strides(tensor)) + ","
    if kernel.packed:
        yield f"{triton_packed.CU_SEQLENS},"
    # a known direction makes distances between steps constants, which addresses hold without registers of their own
    yield ", ".join(f"{name}: tl.constexpr" if name == "direction" else name for name in kernel.integers) + ","
    yield ", ".join(f"{name}: tl.constexpr" for name in constants(kernel)) + ","


def _place(kernel: Kernel) -> Iterator[str]:
    """Which part of the work this program has, and where its data starts."""
    layout = kernel.layout
    yield "pid = tl.program_id(0)"
    for name in layout.tiles:
        yield f"i_{identifier(name)} = pid % {layout.count(name)}"
        yield f"pid = pid // {layout.count(name)}"
    yield "i_h = pid % heads"
    yield "pid = pid // heads"
    yield from triton_packed.place(kernel) if kernel.packed else _sequences(kernel)
    if layout.along == "steps":
        yield f"o_rows = tl.arange(0, {layout.rows})"
        yield "r_t = o_rows.to(tl.int64)"
    for name in _axis_names(kernel):
        yield from _offsets(layout, name)
    if not kernel.packed and any(tensor.place == "step" for tensor in kernel.tensors):
        yield f"t = {_first_step(kernel)}.to(tl.int64)"
    late = _written_last(kernel)
    yield from (_pointer(kernel, tensor) for tensor in kernel.tensors if tensor.name not in late)


def _sequences(kernel: Kernel) -> Iterator[str]:
    """Which sequences (and which chunk of them) a program has."""
    layout, groups = kernel.layout, _groups(kernel.layout)
    yield f"i_r = (pid % {groups}).to(tl.int64)"
    if kernel.walk == "apart":
        yield f"i_c = pid // {groups}"
    if layout.sequences == 1:
        yield "i_b = i_r"
    else:
        yield f"i_b = i_r * {layout.rows} + tl.arange(0, {layout.rows})"
        yield "m_rows = i_b < batch"


def _block(kernel: Kernel) -> Iterator[str]:
    """Which steps the block has that begins ``i`` steps after the first; ``last`` is the row of its last one."""
    if kernel.layout.along == "steps":
        rows = kernel.layout.rows
        yield "m_rows = o_rows < count - i"
        yield f"last = tl.minimum(count - i, {rows}) - 1"


def _first_step(kernel: Kernel) -> str:
    """Where in memory the step stands at which a program begins: the first of its block, where it walks blocks."""
    if kernel.walk == "right":
        return "first"
    return f"(first + direction * (begin + {_walked_before(kernel)}))"


def _walked_before(kernel: Kernel) -> str:
    """How many of the steps to walk stand before the one at which a program begins."""
    rows = kernel.layout.rows
    match kernel.walk:
        case "apart":
            return f"i_c * {kernel.facts['chunk']}"
        case "left" if kernel.layout.along == "steps":
            return f"(tl.cdiv(count, {rows}) - 1) * {rows}"
        case "left":
            return "count - 1"
    return "0"


def _axis_names(kernel: Kernel) -> list[str]:
    """Axes along which some statement has a side, in order."""
    used: set[str] = set()
    for statements in kernel.sections.values():
        for statement in statements:
            labels = [*statement.labels, *(label for arg in statement.args for label in arg.labels)]
            if statement.op == "store":
                labels += [c.label for c in statement.attrs[1] if c.label is not None]
            used.update(label.name for label in labels if label != ROWS)
    return [name for name in kernel.layout.order if name in used]


def _offsets(layout: Layout, name: str) -> Iterator[str]:
    block, word = layout.blocks[name], identifier(name)
    offsets = f"i_{word} * {block} + tl.arange(0, {block})" if name in layout.tiles else f"tl.arange(0, {block})"
    if layout.adjacent is not None:
        offsets = f"tl.max_contiguous({offsets}, {min(layout.adjacent, block)})"
    yield f"o_{word} = {offsets}"
    if layout.padded(Label(name)):
        yield f"m_{word} = o_{word} < {layout.sizes[name]}"


def _numel(layout: Layout, tensor: Tensor) -> int:
    return math.prod(layout.sizes[axis.name] for axis in tensor.axes)


def _pointer(kernel: Kernel, tensor: Tensor) -> str:
    return f"p_{tensor.name} = {tensor.name}_ptr + {_base(kernel, tensor)}"


def _base(kernel: Kernel, tensor: Tensor) -> str:
    """The offset of this program's first element, time included."""
    layout, numel = kernel.layout, _numel(kernel.layout, tensor)
    head = "i_h" if tensor.heads == "heads" else f"(i_h // (heads // {tensor.heads}))"
    if tensor.strided and kernel.packed:
        return f"t * {tensor.name}_st + {head}.to(tl.int64) * {tensor.name}_sh"
    if tensor.strided:
        return f"i_b * {tensor.name}_sb + t * {tensor.name}_st + {head}.to(tl.int64) * {tensor.name}_sh"
    local, chunk = _walked_before(kernel), kernel.facts.get("chunk")
    slot = {
        "right": "0",
        "left": f"begin // {chunk} + tl.cdiv(count, {chunk}) - 1",
        "apart": f"begin // {chunk} + i_c",
    }[kernel.walk]
    index, extent = {
        "step": (f"(i_b * steps + t) * {tensor.heads} + {head}", f"batch * steps * {tensor.heads}"),
        "segment": (f"(i_b * count + {local}) * heads + i_h", "batch * count * heads"),
        "head": ("i_h", "heads"),
        "sequence": ("i_b * heads + i_h", "batch * heads"),
        "checkpoint": (f"(i_b * chunks + {slot}) * heads + i_h", "batch * chunks * heads"),
        "partial": ("i_r * heads + i_h", f"{_groups(layout)} * heads"),
    }[tensor.place]
    if kernel.packed and tensor.place in ("step", "segment", "checkpoint"):
        index, extent = triton_packed.index(kernel, tensor)
        index = f"{index} + {head}"
    copy = _copy_index(layout, tensor.copies)
    if copy:
        index = f"{copy}.to(tl.int64) * ({extent}) + {index}"
    if numel == 1:
        return index
    return f"({index}) * {numel}" if " " in index else f"{index} * {numel}"


def _groups(layout: Layout) -> str:
    return "batch" if layout.sequences == 1 else f"tl.cdiv(batch, {layout.rows})"


def _copy_index(layout: Layout, copies: tuple[str, ...]) -> str:
    index = ""
    for name in copies:
        index = f"({index} * {layout.count(name)} + i_{identifier(name)})" if index else f"i_{identifier(name)}"
    return index


def _stride(layout: Layout, tensor: Tensor) -> str:
    """How far a tensor's place moves from step to step, or from block to block of them, to the right."""
    stride = _step_stride(layout, tensor)
    if layout.along == "steps" and layout.rows_of(tensor.place):
        return f"{stride} * {layout.rows}"
    return stride


def _step_stride(layout: Layout, tensor: Tensor) -> str:
    """How far apart two steps lie in memory; for checkpoints, two chunks."""
    if tensor.strided:
        return f"direction * {tensor.name}_st"
    direction = "direction * " if tensor.place == "step" else ""
    numel = _numel(layout, tensor)
    return f"{direction}{tensor.heads}" + (f" * {numel}" if numel != 1 else "")


# ---------------------------------------------------------------- statements


def _statement(layout: Layout, s: Statement) -> Iterator[str]:
    if s.op in OPERATIONS:
        yield f"{s.target} = {expression(s.op, [_spread(arg, s.labels) for arg in s.args])}"
    else:
        yield _SPECIAL[s.op](layout, s)


def _spread(ref: Ref, labels: tuple[Label, ...]) -> str:
    """A value as it stands in an expression on a tile with the given sides."""
    if ref.number is not None:
        return number(ref.number)
    if not ref.labels or ref.labels == labels:
        return ref.name
    return f"{ref.name}[{', '.join(':' if label in ref.labels else 'None' for label in labels)}]"


def _vector(name: str, label: Label, labels: tuple[Label, ...]) -> str:
    """A one-dimensional variable as a side of a tile."""
    return _spread(Ref(name, (label,)), labels)


def _offset(label: Label) -> str:
    return f"o_{identifier(label.name)}"


def _mask(layout: Layout, labels: tuple[Label, ...], sides: tuple[Label, ...]) -> list[str]:
    """Conditions under which lanes of the given sides are inside."""
    names = ["m_rows" if side == ROWS else f"m_{identifier(side.name)}" for side in sides if layout.padded(side)]
    padded = [side for side in sides if layout.padded(side)]
    return [_vector(name, side, labels) for name, side in zip(names, padded, strict=True)]


def _address(layout: Layout, tensor: Tensor, coordinates: tuple[Coordinate, ...], labels: tuple[Label, ...]) -> str:
    rows = layout.rows_of(tensor.place)
    if layout.along == "steps" and rows:
        parts = [f"p_{tensor.name}", f"{_vector('r_t', ROWS, labels)} * ({_step_stride(layout, tensor)})"]
    else:
        parts = [_spread(Ref(f"p_{tensor.name}", rows), labels)]
    for position, coordinate in enumerate(coordinates):
        stride = _axis_stride(layout, tensor, position)
        if coordinate.label is None:
            parts += [_times(str(coordinate.start), stride)] if coordinate.start else []
            continue
        offset = _vector(_offset(coordinate.label), coordinate.label, labels)
        offset = f"({offset} + {coordinate.start})" if coordinate.start else offset
        parts.append(_times(offset, stride))
    return " + ".join(parts)


def _times(offset: str, stride: str) -> str:
    return offset if stride == "1" else f"{offset} * {stride}"


def _axis_stride(layout: Layout, tensor: Tensor, position: int) -> str:
    if tensor.strided:
        return f"{tensor.name}_s{position}"
    return str(math.prod(layout.sizes[axis.name] for axis in tensor.axes[position + 1 :]))


def _conditions(layout: Layout, tensor: Tensor, coordinates: tuple[Coordinate, ...], labels: tuple[Label, ...]) -> str:
    sides = tuple(dict.fromkeys(c.label for c in coordinates if c.label is not None))
    masks = _mask(layout, labels, (*layout.rows_of(tensor.place), *sides))
    masks += [f"(i_{identifier(name)} == 0)" for name in tensor.first_tile]
    return " & ".join(masks)


def _load(layout: Layout, s: Statement) -> str:
    tensor, coordinates, *again = s.attrs
    mask = _conditions(layout, tensor, coordinates, s.labels)
    text = f"tl.load({_address(layout, tensor, coordinates, s.labels)}"
    text += f", mask={mask}, other=0.0" if mask else ""
    if again:  # said aloud: else Triton would take the load for an earlier one and keep what that has loaded
        text += ', cache_modifier=".ca"' if again[1] % 2 else ', eviction_policy="evict_first"'
    text += ")"
    return f"{s.target} = {text}" + ("" if tensor.compute else ".to(tl.float32)")


def _store(layout: Layout, s: Statement) -> str:
    tensor, coordinates = s.attrs
    labels = layout.sort((*layout.rows_of(tensor.place), *(c.label for c in coordinates if c.label is not None)))
    mask = _conditions(layout, tensor, coordinates, labels)
    text = f"tl.store({_address(layout, tensor, coordinates, labels)}, {_spread(s.args[0], labels)}"
    return text + (f", mask={mask})" if mask else ")")


def _masked(layout: Layout, ref: Ref, sides: tuple[Label, ...], fill: str = "0.0") -> str:
    """A value with lanes outside of the given sides replaced."""
    masks = _mask(layout, ref.labels, tuple(side for side in sides if side not in ref.clean))
    return f"tl.where({' & '.join(masks)}, {ref.name}, {fill})" if masks else ref.name


def _reduce(layout: Layout, s: Statement) -> str:
    (ref,), (side,) = s.args, s.attrs
    axis = ref.labels.index(side)
    if s.op == "sum":
        return f"{s.target} = tl.sum({_masked(layout, ref, (side,))}, axis={axis})"
    inside = _masked(layout, Ref(ref.name, ref.labels), (side,), '-float("inf")')
    return f"{s.target} = tl.reduce({inside}, {axis}, _greatest)"


def _product_sum(layout: Layout, s: Statement) -> str:
    summed, labels = s.attrs
    product = " * ".join(_spread(arg, labels) for arg in s.args)
    masks = _mask(layout, labels, tuple(side for side in summed if not all(side in arg.clean for arg in s.args)))
    text = f"tl.where({' & '.join(masks)}, {product}, 0.0)" if masks else product
    for side in sorted(summed, key=labels.index, reverse=True):
        text = f"tl.sum({text}, axis={labels.index(side)})"
    return f"{s.target} = {text}"


def _dot(layout: Layout, s: Statement) -> str:
    left, right = s.args
    return f'{s.target} = tl.dot({left.name}, {right.name}, input_precision="{s.attrs[0]}")'


def _select(layout: Layout, s: Statement) -> str:
    """``out[i] = x[i - shift]``: a sum over the source side of which one term is not zero."""
    (ref,), (source, target, shift) = s.args, s.attrs
    labels = layout.sort((*ref.labels, source, target))
    same = f"{_vector(_offset(target), target, labels)} == {_vector(_offset(source), source, labels)}"
    same = f"({same} + {shift})" if shift > 0 else f"({same} - {-shift})" if shift else f"({same})"
    masks = " & ".join([same, *_mask(layout, labels, (source,))])
    return f"{s.target} = tl.sum(tl.where({masks}, {_spread(ref, labels)}, 0.0), axis={labels.index(source)})"


def _entry(layout: Layout, s: Statement) -> str:
    (ref,), (side, entry) = s.args, s.attrs
    same = f"{_vector(_offset(side), side, ref.labels)} == {entry}"
    return f"{s.target} = tl.sum(tl.where({same}, {ref.name}, 0.0), axis={ref.labels.index(side)})"


def _put(layout: Layout, s: Statement) -> str:
    (ref,), (side, entry) = s.args, s.attrs
    same = f"{_vector(_offset(side), side, s.labels)} == {entry}"
    return f"{s.target} = tl.where({same}, {_spread(ref, s.labels)}, 0.0)"


def _transpose(layout: Layout, s: Statement) -> str:
    (ref,) = s.args
    order = ", ".join(str(ref.labels.index(label)) for label in s.labels)
    return f"{s.target} = tl.permute({ref.name}, ({order}))"


def _mask_sides(layout: Layout, s: Statement) -> str:
    return f"{s.target} = {_masked(layout, s.args[0], s.attrs)}"


def _shape(layout: Layout, labels: tuple[Label, ...]) -> str:
    return "(" + "".join(f"{layout.block(label)}, " for label in labels).rstrip(" ") + ")"


def _fill(layout: Layout, s: Statement) -> str:
    (ref,), (side, value) = s.args, s.attrs
    return f"{s.target} = {_masked(layout, ref, (side,), number(value))}"


def _scan(layout: Layout, s: Statement) -> str:
    """Running results over the rows of several tiles at once.

    Where what enters a row is wanted too, it is a second half of the tiles, which begin neutral.
    """
    targets, entering = s.attrs
    axis = s.labels.index(ROWS)
    if len(targets) == 1:
        return f"{s.target} = tl.cumsum({s.args[0].name}, axis={axis})"
    operands = ", ".join(ref.name for ref in s.args)
    function = f"_{s.op}_entering" if entering else f"_{s.op}"
    return f"{', '.join(targets)} = tl.associative_scan(({operands}), {axis}, {function})"


def _flip(layout: Layout, s: Statement) -> str:
    return f"{s.target} = tl.flip({s.args[0].name}, {s.args[0].labels.index(s.attrs[0])})"


def _row(layout: Layout, s: Statement) -> str:
    (ref,), (which,) = s.args, s.attrs
    row = "last" if which == "last" else str(layout.rows - 1)
    same = f"{_vector('o_rows', ROWS, ref.labels)} == {row}"
    return f"{s.target} = tl.sum(tl.where({same}, {ref.name}, 0.0), axis={ref.labels.index(ROWS)})"


def _total(layout: Layout, s: Statement) -> str:
    """A sum over rows to one number, by way of running sums.

    Before 3.8 at least, Triton's pass for Blackwell's tensor memory fails on a sum to one number of what follows from
    a matrix product; it does not look beyond running sums.
    """
    (ref,) = s.args
    running = f"tl.cumsum({_masked(layout, ref, s.attrs)}, axis=0)"
    return f"{s.target} = tl.sum(tl.where(o_rows == {layout.rows - 1}, {running}, 0.0), axis=0)"


def _zeros(layout: Layout, s: Statement) -> str:
    return f"{s.target} = tl.zeros({_shape(layout, s.labels)}, tl.float32)" if s.labels else f"{s.target} = 0.0"


def _assign(layout: Layout, s: Statement) -> str:
    (ref,) = s.args
    if ref.labels == s.labels and ref.number is None:
        return f"{s.target} = {ref.name}"
    if ref.number is not None:
        return f"{s.target} = tl.full({_shape(layout, s.labels)}, {number(ref.number)}, tl.float32)"
    return f"{s.target} = tl.broadcast_to({_spread(ref, s.labels)}, {_shape(layout, s.labels)})"


def _keep(layout: Layout, s: Statement) -> str:
    mask = _vector("m_rows", ROWS, s.labels)
    return f"{s.target} = tl.where({mask}, {_spread(s.args[0], s.labels)}, {s.target})"


def _accumulate(layout: Layout, s: Statement) -> str:
    return f"{s.target} += {_spread(s.args[0], s.labels)}"


_SPECIAL: dict[str, Callable[[Layout, Statement], str]] = {
    "load": _load,
    "store": _store,
    "sum": _reduce,
    "amax": _reduce,
    "product_sum": _product_sum,
    "dot": _dot,
    "select": _select,
    "entry": _entry,
    "place": _put,
    "transpose": _transpose,
    "mask": _mask_sides,
    "fill": _fill,
    "flip": _flip,
    "row": _row,
    "total": _total,
    **{op: _scan for op in SCANS},
    "zeros": _zeros,
    "assign": _assign,
    "keep": _keep,
    "accumulate": _accumulate,
}
