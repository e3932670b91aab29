"""Imports generated files as real modules, and leads errors in them back to the `.rec` text.

Debuggers, ``inspect.getsource`` and Triton read a module's file, so generated code is imported from
its file and never executed from a string. Beside ``kernels.py`` may stand ``kernels.py.map.json``:
``{"source": "lstm.rec", "lines": {"12": [22, 3, "c' = ..."]}}``, generated line to line, column and
text of the spec.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

_LOADING = threading.RLock()


@dataclass(frozen=True)
class LineMap:
    """Which line of a `.rec` text each line of one generated file came from."""

    file: str
    source: str
    lines: Mapping[int, tuple[int, int, str]]

    def place(self, line: int) -> str | None:
        """``lstm.rec:22:3: c' = ...`` for a line of the generated file, None if it came from a template."""
        found = self.lines.get(line)
        if found is None:
            return None
        number, column, text = found
        return f"{self.source}:{number}:{column}" + (f": {text}" if text else "")


def map_path(path: Path) -> Path:
    """Where the line map of a generated file stands."""
    return path.with_name(path.name + ".map.json")


def read_map(path: Path) -> LineMap:
    """The line map of a generated file; an empty one if there is none."""
    try:
        data = json.loads(map_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return LineMap(str(path), "", {})
    lines = {int(key): (int(line), int(column), str(text)) for key, (line, column, text) in data["lines"].items()}
    return LineMap(str(path), data["source"], lines)


class _FreshLoader(SourceFileLoader):
    """Compiles the file as it is now: bytecode caches are told apart by age and size only."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def load_module(path: Path, name: str) -> ModuleType:
    """Import a generated file under ``name``; the same file and name give the same module.

    The module is in ``sys.modules`` and carries its line map as ``__rec_map__``. Whatever its code
    raises passes through, with the place in the `.rec` text as a note.
    """
    with _LOADING:
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) == str(path):
            return known
        loader = _FreshLoader(name, str(path))
        spec = spec_from_file_location(name, path, loader=loader)
        assert spec is not None
        module = module_from_spec(spec)
        module.__dict__["__rec_map__"] = line_map = read_map(path)
        sys.modules[name] = module
        try:
            with explained(line_map):
                loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


def locate(traceback: TracebackType | None, line_map: LineMap) -> str | None:
    """The place in the `.rec` text of the innermost frame that runs the generated file, if it has one."""
    place = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == line_map.file:
            place = line_map.place(traceback.tb_lineno) or place
        traceback = traceback.tb_next
    return place


def locate_error(error: BaseException, line_map: LineMap) -> str | None:
    """The place in the `.rec` text that an error, or what caused it, came from.

    Python's own tracebacks are followed, and the positions that Triton's compiler notes.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        place = locate(current.__traceback__, line_map) or _locate_compiled(current, line_map)
        if place is not None:
            return place
        current = current.__cause__ or current.__context__
    return None


def _locate_compiled(error: BaseException, line_map: LineMap) -> str | None:
    """The place of an error of Triton's compiler, which carries a function's text and a line within it."""
    text, line = getattr(error, "src", None), getattr(getattr(error, "node", None), "lineno", None)
    if not isinstance(text, str) or line is None:
        return None
    try:
        before, found, _ = Path(line_map.file).read_text(encoding="utf-8").partition(text.rstrip())
    except OSError:
        return None
    return line_map.place(before.count("\n") + line) if found else None


@contextmanager
def explained(line_map: LineMap) -> Iterator[None]:
    """Exceptions that pass through the generated file end with ``from lstm.rec:22:3: ...``."""
    try:
        yield
    except Exception as error:
        place = locate_error(error, line_map)
        if place is not None:
            _add_note(error, f"from {place}")
        raise


def _add_note(error: Exception, note: str) -> None:
    if sys.version_info >= (3, 11):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    elif error.args and isinstance(error.args[0], str):
        if not error.args[0].endswith(note):
            error.args = (f"{error.args[0]}\n{note}", *error.args[1:])
    else:
        error.args = (*error.args, note)
