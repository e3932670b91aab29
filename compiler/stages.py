"""What every stage made of a recurrence, as text: what `recurra show STAGE` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from ..dsl.latex import latex
from ..dsl.source import Source
from .ir.program import Program, live, related_sizes, show_body
from .ir.types import show_axes
from .kernels import Backend, compile_kernels
from .kernels import Compiled as Kernels
from .lower.dump import show_kernel
from .options import KernelOptions, Options
from .pipeline import STAGES as FRONT
from .pipeline import Compiled, compile_source


@dataclass(frozen=True)
class Subject:
    """A recurrence that is being looked at; nothing is compiled before it is asked for."""

    source: Source
    consts: Mapping[str, int]
    sizes: Mapping[str, int]
    backend: Backend = "triton"

    @cached_property
    def front(self) -> Compiled:
        return compile_source(self.source, Options(consts=tuple(self.consts.items())))

    @cached_property
    def kernels(self) -> Kernels:
        program = self.front.program
        given = related_sizes(program.dims, self.sizes)
        missing = {dim.name: 64 for dim in program.dims if dim.alias is None and dim.name not in given}
        sizes = related_sizes(program.dims, given | missing)
        return compile_kernels(program, sizes, KernelOptions(), backend=self.backend)


def _front(name: str) -> Callable[[Subject], str]:
    return lambda subject: str(subject.front.stages[name])


def _core(subject: Subject) -> str:
    return show_program(subject.kernels.split.core)


def _adjoint(subject: Subject) -> str:
    step = subject.kernels.adjoint
    groups = (("input", step.inputs), ("param", step.params), ("state", step.states))
    found = [(kind, name, value) for kind, items in groups for name, value in items if value is not None]
    lines = [show_body(step.body, live(step.body, (value for _, _, value in found)))]
    return "\n".join([*lines, *(f"d {kind} {name} = %{value}" for kind, name, value in found)])


def _kernels(subject: Subject) -> str:
    return "\n\n".join(show_kernel(kernel) for kernel in subject.kernels.kernels)


STAGES: dict[str, tuple[str, Callable[[Subject], str]]] = {
    **{stage.name: (stage.what, _front(stage.name)) for stage in FRONT},
    "latex": ("the equations", lambda subject: latex(subject.front.tree)),
    "core": ("what is left for kernels that walk the steps", _core),
    "adjoint": ("the step's reverse pass", _adjoint),
    "kernels": ("straight-line code on tiles", _kernels),
    "source": ("the generated module", lambda subject: subject.kernels.generated.text),
}
"""Every stage by name, in the compiler's order, with what it makes."""


BACKENDS: tuple[Backend, ...] = get_args(Backend)


def show_stage(
    stage: str, source: Source, consts: Mapping[str, int], sizes: Mapping[str, int], backend: Backend = "triton"
) -> str:
    """The text of one stage for a backend at these sizes (64 for those that are not given); SpecError as compiling."""
    return STAGES[stage][1](Subject(source, consts, sizes, backend))


def show_program(program: Program) -> str:
    """Declarations, then the body one value a line, then what the step results in."""
    lines = [f"recurrence {program.name}"]
    for kind, items in (("state", program.states), ("input", program.inputs), ("param", program.params)):
        lines += [f"{kind} {item.name} {show_axes(item.axes)}" for item in items]
    starts = [state.start for state in program.states]
    lines.append(show_body(program.body, live(program.body, (*starts, *program.roots()))))
    lines += [f"{state.name}' = %{state.next} from %{state.start}" for state in program.states]
    lines += [f"{output.name} = %{output.value}" for output in program.outputs]
    return "\n".join(lines)
