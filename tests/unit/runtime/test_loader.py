from __future__ import annotations

import ast
import inspect
import json
import os
import sys
import traceback
from pathlib import Path

import pytest

from recurra.runtime.store.loader import LineMap, explained, load_module, locate, map_path, read_map

CODE = "def step(x):\n    y = x + 1\n    return y / 0\n"


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    path = tmp_path / "kernels.py"
    path.write_text(CODE)
    map_path(path).write_text(json.dumps({"source": "demo.rec", "lines": {"3": [22, 5, "S' = y / 0"]}}))
    yield path
    sys.modules.pop("recurra_test_generated", None)


def test_loads_a_real_module_once(generated: Path) -> None:
    module = load_module(generated, "recurra_test_generated")
    assert sys.modules["recurra_test_generated"] is module
    assert inspect.getsource(module.step) == CODE
    assert load_module(generated, "recurra_test_generated") is module


def test_leaves_no_bytecode_and_reads_the_file_anew(generated: Path) -> None:
    load_module(generated, "recurra_test_generated")
    assert not (generated.parent / "__pycache__").exists()
    stamp = generated.stat()
    generated.write_text(CODE.replace("+ 1", "+ 2"))  # same size and age
    os.utime(generated, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    del sys.modules["recurra_test_generated"]
    assert 2 in load_module(generated, "recurra_test_generated").step.__code__.co_consts


def test_errors_name_the_line_of_the_spec(generated: Path) -> None:
    module = load_module(generated, "recurra_test_generated")
    with pytest.raises(ZeroDivisionError) as caught, explained(module.__rec_map__):
        module.step(1)
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.rstrip().endswith("from demo.rec:22:5: S' = y / 0")
    assert locate(caught.value.__traceback__, module.__rec_map__) == "demo.rec:22:5: S' = y / 0"


def test_what_caused_an_error_is_followed(generated: Path) -> None:
    module = load_module(generated, "recurra_test_generated")
    with pytest.raises(RuntimeError) as caught, explained(module.__rec_map__):
        try:
            module.step(1)
        except ZeroDivisionError as error:
            raise RuntimeError("kernel failed") from error
    assert "".join(traceback.format_exception(caught.value)).rstrip().endswith("from demo.rec:22:5: S' = y / 0")


def test_positions_of_tritons_compiler_are_followed(generated: Path) -> None:
    """Its errors carry the text of the function and a line counted from there."""
    generated.write_text("import os\n\n\n" + CODE)
    map_path(generated).write_text(json.dumps({"source": "demo.rec", "lines": {"6": [22, 5, "S' = y / 0"]}}))
    error = ValueError("invalid operands")
    error.src, error.node = CODE, ast.parse(CODE).body[0].body[1]
    with pytest.raises(ValueError) as caught, explained(read_map(generated)):
        raise error
    assert "from demo.rec:22:5: S' = y / 0" in "".join(traceback.format_exception(caught.value))


def test_a_note_is_added_once(generated: Path) -> None:
    module = load_module(generated, "recurra_test_generated")
    with (
        pytest.raises(ZeroDivisionError) as caught,
        explained(module.__rec_map__),
        explained(module.__rec_map__),
    ):
        module.step(1)
    assert "".join(traceback.format_exception(caught.value)).count("from demo.rec") == 1


def test_lines_of_templates_and_other_files_get_no_note(generated: Path) -> None:
    module = load_module(generated, "recurra_test_generated")
    with pytest.raises(TypeError) as caught, explained(module.__rec_map__):
        module.step("text")  # line 2 came from a template
    assert "demo.rec" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(KeyError) as other, explained(LineMap("elsewhere.py", "demo.rec", {})):
        raise KeyError(1)
    assert "demo.rec" not in "".join(traceback.format_exception(other.value))


def test_a_module_that_fails_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("x = 1\nraise RuntimeError('no')\n")
    map_path(path).write_text(json.dumps({"source": "demo.rec", "lines": {"2": [3, 1, "let x"]}}))
    with pytest.raises(RuntimeError) as caught:
        load_module(path, "recurra_test_broken")
    assert "recurra_test_broken" not in sys.modules
    assert "from demo.rec:3:1: let x" in "".join(traceback.format_exception(caught.value))


def test_a_file_without_a_map_has_an_empty_one(tmp_path: Path) -> None:
    assert read_map(tmp_path / "a.py") == LineMap(str(tmp_path / "a.py"), "", {})
