"""What became of a recurrence: facts, strategies with their reasons, and the backend that runs it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, get_args

import torch

from ..compiler.analysis.independence import independent_axes
from ..compiler.analysis.structure import TransitionFacts
from ..compiler.forms import describe_passes, pass_lines
from ..compiler.ir.program import Gate, Program
from ..compiler.kernels import Backend, Compiled, compile_kernels
from ..compiler.options import KernelOptions, Options
from .backends import Task, choose

if TYPE_CHECKING:
    from .recurrence import Recurrence

DEFAULT_SIZE = 64
"""The size of every dimension that is not given."""


@dataclass(frozen=True)
class Explanation:
    """What the compiler found out and decided. ``str()`` is for people, ``data`` for programs (JSON)."""

    data: Mapping[str, Any]

    def __str__(self) -> str:
        return "\n".join(_lines(self.data))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def explain(recurrence: Recurrence, device: torch.device | str | None, sizes: Mapping[str, int]) -> Explanation:
    """The explanation of a recurrence on a device (default: a GPU if there is one) at these sizes."""
    program = recurrence.program
    bound = complete_sizes(recurrence, sizes)
    where = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Explanation(
        {
            "name": program.name,
            "doc": " ".join(program.doc.strip().split("\n\n")[0].split()),
            "sizes": bound,
            "consts": dict(program.consts),
            **{
                kind: {item.name: [axis.name for axis in item.axes] for item in items}
                for kind, items in _declared(program).items()
            },
            "gates": [_gate(recurrence, gate) for gate in program.gates],
            "transitions": [_transition(facts) for facts in recurrence.compiled.facts],
            "passes": describe_passes(program),
            "independent": list(independent_axes(program)),
            "strategies": _strategies(program, bound, recurrence.options, "cpu" if where.type == "cpu" else "triton"),
            "backend": _backend(program, bound, where),
        }
    )


def complete_sizes(recurrence: Recurrence, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes for every dimension: those given, the default for others."""
    given = recurrence.bind_sizes(sizes)
    missing = {d.name: DEFAULT_SIZE for d in recurrence.program.dims if d.name not in given and d.alias is None}
    return recurrence.bind_sizes({**given, **missing})


def generated_source(recurrence: Recurrence, backend: str, sizes: Mapping[str, int]) -> str:
    """The generated code of a backend; ValueError for one that generates none."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend {backend!r} generates no code; there are: {', '.join(get_args(Backend))}")
    chosen: Backend = "cpu" if backend == "cpu" else "triton"
    return _kernels(recurrence.program, complete_sizes(recurrence, sizes), recurrence.options, chosen).generated.text


def _kernels(program: Program, sizes: Mapping[str, int], options: Options, backend: Backend) -> Compiled:
    return compile_kernels(program, sizes, KernelOptions.of(options), backend=backend)


def _declared(program: Program) -> dict[str, Any]:
    return {
        "states": program.states,
        "inputs": program.inputs,
        "params": program.params,
        "outputs": program.outputs,
    }


def _gate(recurrence: Recurrence, gate: Gate) -> dict[str, Any]:
    axes = [axis.name for axis in recurrence.program.body[gate.value].axes]
    inferred = recurrence.compiled.stages["check"].value.get(gate.name)
    return {
        "name": gate.name,
        "axes": axes,
        "promised": None if gate.declared is None else str(gate.declared),
        "inferred": None if inferred is None else str(inferred),
    }


def _transition(facts: TransitionFacts) -> dict[str, Any]:
    return {
        "state": facts.state,
        "class": facts.title,
        "affine": facts.affine,
        "reads": list(facts.reads),
        "stratum": facts.stratum,
        "reason": facts.reason,
    }


def _strategies(program: Program, sizes: Mapping[str, int], options: Options, backend: Backend) -> dict[str, Any]:
    compiled = _kernels(program, sizes, options, backend)
    verdicts = [
        {"name": v.strategy, "applies": v.applies, "reason": v.reason, "cost": v.cost} for v in compiled.verdicts
    ]
    return {"taken": compiled.strategy, "verdicts": verdicts}


def _backend(program: Program, sizes: Mapping[str, int], device: torch.device) -> dict[str, Any]:
    choice = choose("auto", Task(program, sizes, torch.float32, device))
    return {"device": str(device), "auto": choice.backend.name, "refused": dict(choice.refused)}


def _lines(data: Mapping[str, Any]) -> list[str]:
    lines = [data["name"], *(f"  {line}" for line in wrap(data["doc"], 96)), ""]

    def row(label: str, text: str) -> None:
        lines.append(f"  {label:<12} {text}")

    for kind in ("states", "inputs", "params", "outputs"):
        shown = [f"{name}[{', '.join(axes)}]" if axes else name for name, axes in data[kind].items()]
        if shown:
            row(kind, ", ".join(shown))
    for gate in data["gates"]:
        axes = f"[{', '.join(gate['axes'])}]" if gate["axes"] else ""
        row("gate", f"{gate['name']}{axes} in {gate['promised'] or gate['inferred']}")
    for transition in data["transitions"]:
        row("transition", f"{transition['state']}: {transition['class']} ({transition['reason']})")
    for index, line in enumerate(pass_lines(data["passes"])):
        row("" if index else "normal form", line)
    row("independent", ", ".join(data["independent"]) or "no axis of the states")
    for verdict in data["strategies"]["verdicts"]:
        taken = verdict["name"] == data["strategies"]["taken"]
        verb = "taken" if taken else "applies too" if verdict["applies"] else "refuses"
        row("strategy", f"{verdict['name']}, {verb}: {verdict['reason']}")
        if verdict["cost"]:
            row("", verdict["cost"])
    if data["sizes"]:
        row("", f"decided for {', '.join(f'{name}={size}' for name, size in data['sizes'].items())}")
    backend = data["backend"]
    row("backend", f"{backend['auto']} on {backend['device']}")
    for name, reason in backend["refused"].items():
        row("", f"not {name}: {reason}")
    return lines
