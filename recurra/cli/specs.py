"""What verbs share: files named on the command line, constants, and how mistakes are told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from ..dsl.diagnostics import SpecError
from ..dsl.files import decode, read_source
from ..dsl.source import Source

STDIN = "-"


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Consts = Annotated[
    list[str] | None, typer.Option("--const", metavar="NAME=VALUE", help="Override a constant (repeatable).")
]
Sizes = Annotated[
    list[str] | None, typer.Option("--size", metavar="DIM=SIZE", help="Decide for this size (repeatable; default: 64).")
]
Files = Annotated[
    list[str], typer.Argument(metavar="FILE...", help="Files, or folders of .rec files; - is standard input.")
]


@dataclass
class Problems:
    """Mistakes found so far: of files as a whole, and in their text."""

    files: list[tuple[str, str]] = field(default_factory=list)
    specs: list[SpecError] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.files or self.specs)

    @property
    def count(self) -> int:
        return len(self.files) + sum(len(error.diagnostics) for error in self.specs)

    @contextmanager
    def caught(self, name: str) -> Iterator[None]:
        """Collect what is wrong with one file instead of stopping at it."""
        try:
            yield
        except SpecError as error:
            self.specs.append(error)
        except OSError as error:
            self.files.append((name, f"{name}: {error.strerror or error}"))
        except ValueError as error:
            text = str(error)
            self.files.append((name, text if text.startswith(name) else f"{name}: {text}"))

    def show(self) -> None:
        """Print everything: mistakes in text to standard output, unreadable files to standard error."""
        from ..dsl.render import render_all

        for error in self.specs:
            print(render_all(error.source, error.diagnostics, colour=colourful()))
        for _, text in self.files:
            print(f"error: {text}", file=sys.stderr)

    def as_data(self) -> list[dict[str, Any]]:
        """All mistakes as JSON data."""
        from ..dsl.render import to_json

        found = [{"severity": "error", "file": name, "message": text} for name, text in self.files]
        return found + [to_json(error.source, d) for error in self.specs for d in error.diagnostics]

    def finish(self) -> None:
        """End with exit code 1 if there was a mistake."""
        if self:
            raise typer.Exit(1)


def expand(names: list[str], problems: Problems) -> list[str]:
    """The files meant: folders stand for all ``.rec`` files below them, each file comes once."""
    found: dict[str, None] = {}
    for name in names:
        path = Path(name)
        if name == STDIN or not path.is_dir():
            found[name] = None
            continue
        with problems.caught(name):
            inside = sorted(str(file) for file in path.rglob("*.rec") if file.is_file())
            if not inside:
                raise ValueError(f"{name}: a folder without .rec files")
            found.update(dict.fromkeys(inside))
    return list(found)


def read(name: str) -> Source:
    """The text of one file, or of standard input for ``-``."""
    if name == STDIN:
        return Source("<stdin>", decode(sys.stdin.buffer.read(), "<stdin>"))
    return read_source(name)


def parse_numbers(items: Sequence[str] | None, option: str) -> dict[str, int]:
    """``--const N=3`` or ``--size K=64`` as a dict; wrong usage ends with exit code 2."""
    result = {}
    for item in items or ():
        name, _, value = item.partition("=")
        try:
            result[name.strip()] = int(value)
        except ValueError:
            name = ""
        if not name.strip():
            raise typer.BadParameter(f"{item!r} is not NAME=VALUE with a whole number", param_hint=option)
    return result


def print_json(data: Any) -> None:
    """JSON on standard output, one document."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def colourful() -> bool:
    """Whether standard output wants colour: a terminal, and NO_COLOR is not set."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def plural(count: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@contextmanager
def progress(total: int, verb: str, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A progress bar on standard error, if that is a terminal; call what it yields before each item."""
    if quiet or not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        begun = False

        def advance(name: str) -> None:
            nonlocal begun
            bar.update(task, description=name, advance=1 if begun else 0)
            begun = True

        yield advance
