"""``recurra new``: a commented specification to start from."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from ..dsl.lexer import KEYWORDS
from ..dsl.suggest import closest
from . import specs

STARTER = '''\
recurrence {name}
"""What it remembers, and the paper it comes from."""

dims K, V      # sizes, bound by the tensors of a call
state S[K, V]  # memory per head; zero at the start

input q[K], k[K], v[V]               # one value per step
input a                              # a scalar logit per head and step
param A_log init uniform(0, 2.7726)  # learned, per head

# A gate does not depend on the state; the compiler proves the range you promise.
gate alpha in (0, 1] = exp(-exp(A_log) * softplus(a))

# S is the state before the step, S' the one after it.
transition S' = alpha * S + outer(k, v)

output o[V] = K^-0.5 * q @ S'
'''


def new(
    name: Annotated[str, typer.Argument(help="Name of the recurrence; the file is NAME.rec.")],
    template: Annotated[str, typer.Option("--from", metavar="RECURRENCE", help="Start from one of the zoo.")] = "",
    as_json: specs.AsJson = False,
) -> None:
    """Write a commented starter specification.

    An existing file is never overwritten.
    """
    path = Path(name if name.endswith(".rec") else f"{name}.rec")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", path.stem) or path.stem in KEYWORDS:
        raise typer.BadParameter(f"{path.stem!r} is no name: use letters, digits and _", param_hint="NAME")
    text = _from_zoo(template, path.stem) if template else STARTER.format(name=path.stem)
    problems = specs.Problems()
    with problems.caught(str(path)), path.open("x", encoding="utf-8") as file:
        file.write(text)
    if as_json:
        specs.print_json({"file": None if problems else str(path), "errors": problems.as_data()})
    else:
        problems.show()
        if not problems:
            print(f"wrote {path}; next: recurra check {path}")
    problems.finish()


def zoo() -> dict[str, str]:
    """The text of every recurrence that is installed with Recurra."""
    folder = resources.files("recurra.zoo")
    entries = [entry for entry in folder.iterdir() if entry.name.endswith(".rec")]
    return {e.name.removesuffix(".rec"): e.read_text(encoding="utf-8") for e in sorted(entries, key=lambda e: e.name)}


def _from_zoo(template: str, name: str) -> str:
    known = zoo()
    if template not in known:
        guess = closest(template, known)
        hint = f"did you mean {guess}?" if guess else f"there are {', '.join(known)}"
        raise typer.BadParameter(f"the zoo has no {template!r}; {hint}", param_hint="--from")
    return re.sub(r"^(\s*(?:#[^\n]*\n\s*)*recurrence\s+)\w+", lambda m: m[1] + name, known[template], count=1)
