"""The command ``recurra``: one file per verb, each of which imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from .check import check
from .doctor import doctor
from .explain import explain
from .fmt import fmt
from .new import new
from .show import show
from .verify import verify

VERBS = (new, check, fmt, show, explain, verify, doctor)

app = typer.Typer(
    help="Compile recurrences: from twenty lines of .rec to fused, verified kernels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in VERBS:
    app.command()(verb)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"recurra {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; mistakes in files and arguments end with one message and exit code 1."""
    app(prog_name="recurra")
