"""The user's object: a recurrence that can be called, stepped, explained and verified."""

from __future__ import annotations

import html
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from ..compiler.analysis.independence import independent_axes
from ..compiler.checks import check_sizes
from ..compiler.ir.program import Program, related_sizes
from ..compiler.ir.types import Axes
from ..compiler.options import Options, Precision
from ..compiler.pipeline import Compiled, compile_source
from ..dsl.files import read_source
from ..dsl.source import Source
from . import validate
from .backends import Choice, Task, choose
from .errors import CallError
from .initialise import initialise
from .input_checks import check_values, input_checks_enabled
from .reference import evaluate

if TYPE_CHECKING:
    from ..compiler.analysis.symbolic import Trajectory
    from .explain import Explanation
    from .verify import Report

STRATEGIES = ("auto", "chunk", "scan", "recurrent", "stepwise")


def load(spec: str | Path, /, **consts: int) -> Recurrence:
    """A recurrence from a `.rec` file, or from its text if ``spec`` has a line break.

    ``consts`` override the spec's constants of that name. SpecError with all mistakes of the text;
    OSError or ValueError if the file cannot be read.
    """
    if isinstance(spec, str) and "\n" in spec:
        return Recurrence(Source("<text>", spec), consts)
    return Recurrence(read_source(spec), consts)


@lru_cache(maxsize=256)
def _compiled(source: Source, consts: tuple[tuple[str, int], ...]) -> Compiled:
    return compile_source(source, Options(consts=consts))


class Recurrence:
    """A compiled recurrence. Immutable; safe to share between threads, to copy and to pickle.

    Call it with its inputs ``[B, T, G, *axes]`` and params ``[H, *axes]`` by name; G, the heads of an
    input, divides H. See :meth:`__call__`.
    """

    def __init__(self, source: Source, consts: Mapping[str, int] | None = None, options: Options | None = None) -> None:
        self._source = source
        self._consts = tuple(sorted((consts or {}).items()))
        self._options = options or Options()
        self._compiled = _compiled(source, self._consts)
        self._program = self._compiled.program
        self._plan = validate.plan(self._program)
        self._result = _result_type(self._program)
        self._fitting: set[tuple[tuple[str, int], ...]] = set()

    # ------------------------------------------------------------ what it is

    @property
    def program(self) -> Program:
        """The typed recurrence."""
        return self._program

    @property
    def compiled(self) -> Compiled:
        """Every stage of the compiler's front half."""
        return self._compiled

    @property
    def name(self) -> str:
        """What the spec calls itself."""
        return self._program.name

    @property
    def text(self) -> str:
        """The `.rec` text."""
        return self._source.text

    @property
    def dims(self) -> tuple[str, ...]:
        """The symbolic sizes."""
        return tuple(dim.name for dim in self._program.dims)

    @property
    def consts(self) -> Mapping[str, float]:
        """The constants with the values they were compiled with."""
        return MappingProxyType(dict(self._program.consts))

    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]:
        """Inputs in order, with the axes that follow ``[B, T, H]``."""
        return _axes_by_name(self._program.inputs)

    @property
    def params(self) -> Mapping[str, tuple[str, ...]]:
        """Params in order, with the axes that follow ``[H]``."""
        return _axes_by_name(self._program.params)

    @property
    def states(self) -> Mapping[str, tuple[str, ...]]:
        """States in order, with the axes that follow ``[B, H]``."""
        return _axes_by_name(self._program.states)

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        """Outputs in order, with the axes that follow ``[B, T, H]``."""
        return _axes_by_name(self._program.outputs)

    @property
    def options(self) -> Options:
        """What was chosen for its kernels."""
        return self._options

    def with_options(
        self,
        *,
        precision: Precision | None = None,
        checkpoint: int | None = None,
        tiles: Mapping[str, int] | None = None,
    ) -> Recurrence:
        """The same recurrence with other choices for its kernels; what is not given stays as it is.

        ``precision`` is the form of float32 matrix products: ``ieee`` (exact, default for float32 inputs),
        ``tf32`` (tensor cores, 10 bits of mantissa, default for 16-bit inputs) or ``tf32x3`` (tensor cores,
        nearly exact). ``checkpoint`` is the number of steps between states that are kept for the backward
        pass. ``tiles`` sets, by axis, how many entries one program takes; the axis must be independent
        (see :meth:`explain`). ValueError for anything else.
        """
        changes: dict[str, Any] = {}
        if precision is not None:
            changes["precision"] = precision
        if checkpoint is not None:
            changes["checkpoint"] = checkpoint
        if tiles is not None:
            free = independent_axes(self._program)
            for name in tiles:
                if name not in free:
                    listed = ", ".join(free) or "none"
                    raise ValueError(f"axis {name!r} cannot be cut into tiles; independent axes are: {listed}")
            changes["tiles"] = tuple(sorted(tiles.items()))
        return Recurrence(self._source, dict(self._consts), replace(self._options, **changes))

    # ------------------------------------------------------------ running it

    def __call__(
        self,
        tensors: Mapping[str, Tensor] | None = None,
        /,
        *,
        initial: Mapping[str, Tensor] | None = None,
        return_state: bool = False,
        reverse: bool = False,
        cu_seqlens: Tensor | None = None,
        backend: str = "auto",
        strategy: str = "auto",
        steps: int | None = None,
        check: bool | None = None,
        **named: Tensor,
    ) -> Any:
        """All steps of a batch of sequences, or of packed ones: the output ``[B, T, H, *axes]``.

        Several outputs come as a named tuple in the order of the spec; with ``return_state`` the
        result is a pair with the dict of final states ``[B, H, *axes]``.

        Args:
            tensors, named: inputs and params by name. A name that is also an option of this call
                (``steps``, say) can only be given in ``tensors``.
            initial: start states by name, float32 (float64 with float64 inputs); those left out
                start as the spec says.
            reverse: run from the last step to the first; the final state is that after step 0.
            cu_seqlens: [N + 1], int32 or int64 on the inputs' device, for N sequences of different lengths that
                lie one after another in inputs of batch 1: sequence i at steps ``cu_seqlens[i]`` to
                ``cu_seqlens[i + 1]``, the first at 0 and the last to T. Each runs by itself (with ``reverse``
                from its own last step), and states are ``[N, H, *axes]``. Numbers that do not ascend from 0 to T
                are refused on a CPU; on a GPU they are not looked at unless ``check``, and give wrong results.
            backend: ``auto``, ``triton``, ``cpu`` or ``reference``.
            strategy: ``auto``, or how steps are taken: ``chunk`` takes many at once as products of matrices where the
                transition's algebra allows that, ``scan`` many at once entry by entry, ``recurrent`` and
                ``stepwise`` one after another. The reference takes them one after another whatever is said, but
                for ``chunk``.
            steps: how many, for a recurrence without inputs and for no other.
            check: look for NaN, Inf and broken promises in the data; None: as
                :func:`recurra.check_inputs` says.

        Inputs share one floating dtype, which the outputs have; params have it too or are float32. Raises
        CallError for arguments that do not fit and BackendError if the backend cannot run them.
        """
        bound = validate.bind(self._plan, self._merged(tensors, named), initial, steps, cu_seqlens)
        if input_checks_enabled() if check is None else check:
            check_values(self._program, bound)
        outputs, final = self._run(bound, backend, strategy, reverse)
        result = outputs[0] if self._result is None else self._result(*outputs)
        if not return_state:
            return result
        return result, {state.name: value for state, value in zip(self._program.states, final, strict=True)}

    def step(
        self,
        state: Mapping[str, Tensor] | None,
        tensors: Mapping[str, Tensor] | None = None,
        /,
        *,
        backend: str = "auto",
        strategy: str = "auto",
        check: bool | None = None,
        **named: Tensor,
    ) -> tuple[Any, dict[str, Tensor]]:
        """One step of decoding: outputs ``[B, H, *axes]`` and the new state.

        Inputs are ``[B, G, *axes]``, without time; params as in a call. ``state`` is a dict of
        ``[B, H, *axes]`` (None: the start). ``state`` itself is not changed.
        """
        given = dict(self._merged(tensors, named))
        for item in self._program.inputs:
            value = given.get(item.name)
            if isinstance(value, Tensor):
                if value.dim() != 2 + len(item.axes):
                    expected = f"[{', '.join(['B', 'H', *map(str, item.axes)])}], one step without a time axis"
                    came = str(list(value.shape))
                    problem = f"needs {2 + len(item.axes)} axes and has {value.dim()}"
                    raise CallError(self.name, item.name, problem, expected, came)
                given[item.name] = value.unsqueeze(1)
        result, final = self(
            given,
            initial=state,
            return_state=True,
            backend=backend,
            strategy=strategy,
            steps=None if self._program.inputs else 1,
            check=check,
        )
        if self._result is None:
            return result.squeeze(1), final
        return self._result(*(output.squeeze(1) for output in result)), final

    def initial(
        self,
        batch: int = 1,
        heads: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        **sizes: int,
    ) -> dict[str, Tensor]:
        """The start states ``[batch, heads, *axes]`` by name; ``sizes`` bind the dimensions of states."""
        bound = self.bind_sizes(sizes)
        like = torch.empty((), dtype=dtype, device=device)
        states = self._program.states
        starts = evaluate(self._program.body, [s.start for s in states], {}, bound, 0, like=like)
        result = {}
        for state in states:
            shape = (batch, heads, *self._shape(state.name, state.axes, bound))
            result[state.name] = starts[state.start].expand(shape).clone()
        return result

    def init_params(
        self,
        heads: int = 1,
        *,
        generator: Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **sizes: int,
    ) -> dict[str, Tensor]:
        """A start for every param, ``[heads, *axes]``, drawn as the spec's initialisers say."""
        bound = self.bind_sizes(sizes)
        return initialise(self._program, heads, bound, generator=generator, device=device, dtype=dtype)

    # ------------------------------------------------------------ looking at it

    def symbolic(self, steps: int = 1, *, initial: Iterable[str] = (), **sizes: int) -> Trajectory:
        """The exact SymPy states and outputs of the first steps, at small sizes (see ``Trajectory``).

        States named in ``initial`` start as symbols, the others as the spec says.
        """
        from ..compiler.analysis.symbolic import trajectory  # late: SymPy takes a quarter of a second

        return trajectory(self._program, steps, self.bind_sizes(sizes), initial=initial)

    def explain(self, device: torch.device | str | None = None, /, **sizes: int) -> Explanation:
        """What the compiler found out and decided: prints as text, ``.data`` is plain JSON data.

        ``device`` (default: a GPU if there is one) and ``sizes`` are those to decide for.
        """
        from .explain import explain

        return explain(self, device, sizes)

    def source(self, backend: str = "triton", /, **sizes: int) -> str:
        """The generated code of a backend, for the given sizes (default: 64 each)."""
        from .explain import generated_source

        return generated_source(self, backend, sizes)

    def verify(self, **options: Any) -> Report:
        """Compare all backends with the exact reference, forward and every gradient."""
        from .verify import verify

        return verify(self._program, **options)

    # ------------------------------------------------------------ as a value

    def __repr__(self) -> str:
        parts = [f"{kind}({_listing(items)})" for kind, items in self._groups() if items]
        return f"<Recurrence {self.name}: {' '.join(parts)}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{kind}</td><td><code>{html.escape(_listing(items))}</code></td></tr>"
            for kind, items in self._groups()
            if items
        )
        doc = html.escape(self._program.doc.strip().split("\n\n")[0])
        return f"<b>{html.escape(self.name)}</b><p>{doc}</p><table>{rows}</table>{self._latex_block}"

    def _repr_latex_(self) -> str:
        return self._latex_block

    @cached_property
    def _latex_block(self) -> str:
        from ..dsl.latex import latex

        return latex(self._compiled.tree)

    def __reduce__(self) -> tuple[Callable[..., Recurrence], tuple[Any, ...]]:
        return _again, (self._source.name, self._source.text, self._consts, self._options)

    def __copy__(self) -> Recurrence:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Recurrence:
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recurrence):
            return NotImplemented
        return self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[object, ...]:
        return self._source.text, self._consts, self._options

    # ------------------------------------------------------------ inside

    def _merged(self, tensors: Mapping[str, Any] | None, named: Mapping[str, Any]) -> Mapping[str, Any]:
        if tensors is None:
            return named
        if not hasattr(tensors, "keys"):
            problem = "takes tensors by name: rec(q=q, k=k, ...) or rec({'q': q, 'k': k, ...})"
            raise CallError(self.name, "", problem, came=type(tensors).__name__)
        given = dict(tensors)
        for name in named:
            if name in given:
                raise CallError(self.name, name, "is given twice")
        return {**given, **named}

    def _run(self, bound: validate.Bound, backend: str, strategy: str, reverse: bool) -> Any:
        if self._takes_parts and not torch.compiler.is_compiling():
            self._check_parts(tuple(bound.sizes.items()))
        choice = self._choose(bound, backend, strategy)
        program = self._program
        starts = zip(program.states, bound.initial, strict=True)
        return choice.backend.run(
            program,
            bound.sizes,
            {i.name: tensor for i, tensor in zip(program.inputs, bound.inputs, strict=True)},
            {p.name: tensor for p, tensor in zip(program.params, bound.params, strict=True)},
            {s.name: tensor for s, tensor in starts if tensor is not None},
            steps=bound.steps,
            reverse=reverse,
            cu_seqlens=bound.cu_seqlens,
            strategy=strategy,
            options=self._options,
        )

    def _choose(self, bound: validate.Bound, backend: str, strategy: str) -> Choice:
        if strategy not in STRATEGIES:
            raise ValueError(f"no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
        return choose(backend, Task(self._program, bound.sizes, bound.dtype, bound.device, strategy))

    @cached_property
    def _takes_parts(self) -> bool:
        return any(instr.op in ("slice", "index") for instr in self._program.body)

    def _check_parts(self, sizes: tuple[tuple[str, int], ...]) -> None:
        """CallError if a slice or an entry lies beyond its axis at these sizes."""
        if sizes not in self._fitting:
            problems = check_sizes(self._program, dict(sizes))
            if problems:
                raise CallError(self.name, "", problems[0])
            self._fitting.add(sizes)

    def bind_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Sizes by dimension, those that follow from them filled in; CallError where they do not agree."""
        known = {dim.name for dim in self._program.dims}
        for name, size in sizes.items():
            if name not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise CallError(self.name, name, f"is no dimension; there are: {listed}")
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise CallError(self.name, name, "must be a whole number >= 1", came=repr(size))
        try:
            return related_sizes(self._program.dims, sizes)
        except ValueError as problem:
            raise CallError(self.name, "", str(problem)) from None

    def _shape(self, name: str, axes: Axes, sizes: Mapping[str, int]) -> tuple[int, ...]:
        try:
            return tuple(axis.size.bind(sizes) for axis in axes)
        except KeyError as missing:
            raise CallError(self.name, name, f"needs the size {missing.args[0]}") from None

    def _groups(self) -> tuple[tuple[str, Mapping[str, tuple[str, ...]]], ...]:
        groups = (("states", self.states), ("inputs", self.inputs), ("params", self.params))
        return (*groups, ("outputs", self.outputs))


def _again(name: str, text: str, consts: tuple[tuple[str, int], ...], options: Options) -> Recurrence:
    return Recurrence(Source(name, text), dict(consts), options)


def _axes_by_name(items: Any) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({item.name: tuple(axis.name for axis in item.axes) for item in items})


def _listing(items: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{name}[{', '.join(axes)}]" if axes else name for name, axes in items.items())


def _result_type(program: Program) -> Any:
    """The named tuple of several outputs, None for one."""
    if len(program.outputs) == 1:
        return None
    # A name that Python or tuples cannot have is replaced by its position.
    return namedtuple(f"{program.name}_outputs", [o.name for o in program.outputs], rename=True)
