"""``recurra show``: what any stage of the compiler made of a recurrence."""

from __future__ import annotations

from typing import Annotated

import typer

from . import specs


def show(
    stage: Annotated[
        str, typer.Argument(help="parse, elaborate, check, analyse, latex, core, adjoint, kernels or source.")
    ],
    file: Annotated[str, typer.Argument(help="A .rec file; - is standard input.")],
    backend: Annotated[str, typer.Option(help="Kernels for triton or cpu (core to source).")] = "triton",
    size: specs.Sizes = None,
    const: specs.Consts = None,
    as_json: specs.AsJson = False,
) -> None:
    """Print what a stage of the compiler made."""
    from ..compiler.stages import BACKENDS, STAGES, show_stage
    from ..dsl.suggest import closest

    if stage not in STAGES:
        guess = closest(stage, STAGES)
        hint = f"did you mean {guess}?" if guess else f"there are {', '.join(STAGES)}"
        raise typer.BadParameter(f"no stage {stage!r}; {hint}", param_hint="STAGE")
    if backend not in BACKENDS:
        raise typer.BadParameter(f"no backend {backend!r}; there are {', '.join(BACKENDS)}", param_hint="--backend")
    consts, sizes = specs.parse_numbers(const, "--const"), specs.parse_numbers(size, "--size")
    problems = specs.Problems()
    text = ""
    with problems.caught(file):
        text = show_stage(stage, specs.read(file), consts, sizes, backend).rstrip("\n")
    if as_json:
        specs.print_json({"stage": stage, "text": text, "errors": problems.as_data()})
    elif problems:
        problems.show()
    else:
        print(text)
    problems.finish()
