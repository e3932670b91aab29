"""The command ``recurra``: one file per verb; only the verb that is called is imported, and what it needs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

VERBS = ("new", "check", "fmt", "show", "explain", "verify", "bench", "doctor")
"""Verbs in the order of the help; each is a function of that name in the file of that name."""


def command_line(verbs: Iterable[str] = VERBS) -> typer.Typer:
    """The command line with these verbs."""
    app = typer.Typer(
        help="Compile recurrences: from twenty lines of .rec to fused, verified kernels.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for verb in verbs:
        app.command(verb)(getattr(import_module(f".{verb}", __name__), verb))
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"recurra {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: exit code 1 for mistakes in files and arguments, 2 for wrong usage."""
    gc.set_threshold(100_000)  # collecting while modules are imported takes a tenth of the time to start
    called = [verb for verb in sys.argv[1:2] if verb in VERBS]
    command_line(called or VERBS)(prog_name="recurra")
