"""``recurra fmt``: one way to lay out `.rec` files."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from . import specs


def fmt(
    files: specs.Files,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 if a file would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Change nothing; print what would change.")] = False,
    as_json: specs.AsJson = False,
) -> None:
    """Format .rec files in place.

    - reads standard input and writes standard output.
    """
    from ..dsl.formatter import format_source

    problems = specs.Problems()
    names = specs.expand(files, problems)
    changed = []
    for name in names:
        with problems.caught(name):
            source = specs.read(name)
            text = format_source(source)
            if text != source.text:
                changed.append(name)
            if diff:
                _print_diff(source.name, source.text, text)
            elif name == specs.STDIN and not check and not as_json:
                sys.stdout.write(text)
            elif text != source.text and not check and name != specs.STDIN:
                _replace(Path(name), text)
    if as_json:
        specs.print_json({"files": len(names), "changed": changed, "errors": problems.as_data()})
    else:
        problems.show()
        if names != [specs.STDIN] and not diff:
            verb = "would change" if check else "changed"
            print(f"{specs.plural(len(names), 'file')}, {len(changed)} {verb}")
            for name in changed if check else ():
                print(f"would change {name}")
    problems.finish()
    if check and changed:
        raise typer.Exit(1)


def _print_diff(name: str, before: str, after: str) -> None:
    from difflib import unified_diff

    lines = unified_diff(before.splitlines(True), after.splitlines(True), name, f"{name} (formatted)")
    sys.stdout.writelines(line if line.endswith("\n") else f"{line}\n\\ no newline at end of file\n" for line in lines)


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, keeping its permissions; a link stays a link."""
    path = path.resolve()
    mode = path.stat().st_mode
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "cannot be written", str(path))
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(draft, mode)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
