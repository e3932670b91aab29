"""What the text of every generated kernel keeps to, whatever the spec."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from unit.kernels.against_reference import STRATEGIES, UNSEEN, ZOO, arguments, run, scans, sizes_of, spec, zoo

from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import Compiled, KernelOptions, compile_kernels
from recurra.compiler.lower.dump import show_kernel
from recurra.compiler.lower.kernel_ir import INTEGERS, PACKED_INTEGERS
from recurra.runtime.ops import generated, triton_backend
from recurra.runtime.store.loader import read_map

SPECS = [*ZOO, *UNSEEN]


def program_of(path: Path) -> Program:
    return spec(path.read_text(), path.name)


@cache
def compiled(path: Path, strategy: str) -> Compiled:
    return made_anew(path, strategy)


def made_anew(path: Path, strategy: str) -> Compiled:
    """The kernels of a strategy, or the recurrent ones for packed sequences."""
    program, packed = program_of(path), strategy == "packed"
    options = KernelOptions(strided=True, packed=packed)
    return compile_kernels(program, sizes_of(program, 20, 12), options, "recurrent" if packed else strategy)


ALL = pytest.mark.parametrize(
    ("path", "strategy"),
    [pytest.param(p, s, id=f"{p.stem}-{s}") for p in SPECS for s in (*STRATEGIES, "packed")]
    + [pytest.param(p, "scan", id=f"{p.stem}-scan") for p in SPECS if scans(program_of(p), 20, 12)],
)


def functions(text: str) -> list[ast.FunctionDef]:
    """The kernels of a module: functions whose integers are not specialised."""
    tree = ast.parse(text)
    return [f for f in tree.body if isinstance(f, ast.FunctionDef) and isinstance(f.decorator_list[0], ast.Call)]


@ALL
def test_text(path: Path, strategy: str) -> None:
    made = compiled(path, strategy)
    text = made.generated.text
    for banned in ("atomic", "libdevice", "make_block_ptr", "inline_asm", "debug_barrier", "import os", "\t"):
        assert banned not in text
    assert [f.name for f in functions(text)] == [k.name for k in made.kernels]
    assert len({k.name for k in made.kernels}) == len(made.kernels)
    for function in functions(text):
        (decorator,) = function.decorator_list
        assert isinstance(decorator, ast.Call)
        (keyword,) = decorator.keywords
        assert keyword.arg == "do_not_specialize"
        integers = PACKED_INTEGERS if strategy == "packed" else INTEGERS
        assert ast.literal_eval(keyword.value) == list(integers)
        names = [argument.arg for argument in function.args.args]
        assert len(set(names)) == len(names)
        # every length is an argument, and only numbers of heads are known when Triton compiles
        fixed = {a.arg for a in function.args.args if a.annotation is not None}
        assert all(name.startswith("heads") for name in fixed) and not fixed & set(integers)


@ALL
def test_offsets_have_64_bits(path: Path, strategy: str) -> None:
    """Whatever grows with the batch, the length or the number of tiles is multiplied in 64 bits."""
    for function in functions(compiled(path, strategy).generated.text):
        body = ast.unparse(function)
        packed = strategy == "packed"
        assert re.search(r"i_r = (\(pid % .*\)|pid)\.to\(tl\.int64\)\n", body)
        starts = {"begin", "row", "slot"} if packed else set()
        wide = {"i_r", "i_b", "t", *starts}
        assert "program_id(1)" not in body  # axes 1 and 2 of the grid end at 65535
        for line in body.splitlines():
            name, _, value = line.strip().partition(" = ")
            if name == "t" and not packed:  # packed sequences begin at numbers of 64 bits
                assert value.endswith(".to(tl.int64)")
            if name.startswith("p_") and any(word in value for word in ("steps", "_sb", "count", *starts)):
                first = re.search(r"\w+", value.split(" + ", 1)[1])
                assert first is not None
                assert first[0] in wide or ".to(tl.int64) *" in value, line


@ALL
def test_every_dot_has_sides_of_sixteen_and_clean_padding(path: Path, strategy: str) -> None:
    made = compiled(path, strategy)
    for kernel in made.kernels:
        for statements in kernel.sections.values():
            for s in statements:
                if s.op == "dot":
                    left, right = s.args
                    sides = {*left.labels, *right.labels}
                    assert all(kernel.layout.block(side) >= 16 for side in sides)
                    (summed,) = set(left.labels) & set(right.labels)
                    for operand in (left, right):
                        masked = any(m.target == operand.name and m.op == "mask" for m in statements)
                        assert masked or summed in operand.clean or not kernel.layout.padded(summed)


@ALL
def test_nothing_is_read_after_it_was_written(path: Path, strategy: str) -> None:
    """No kernel loads from a tensor that it stores to: other threads' stores are not visible."""
    for kernel in compiled(path, strategy).kernels:
        touched: dict[str, set[str]] = {"load": set(), "store": set()}
        for statements in kernel.sections.values():
            for s in statements:
                if s.op in touched:
                    touched[s.op].add(s.attrs[0].name)
        assert not touched["load"] & touched["store"], kernel.name


@ALL
def test_same_spec_same_bytes(path: Path, strategy: str) -> None:
    made = compiled(path, strategy)
    again = made_anew(path, strategy)
    assert again.generated == made.generated
    for other in ("2024", "0x", "<", str(path.parent)):
        assert other not in re.sub(r" <=? ", " ", made.generated.text)


def test_same_spec_same_bytes_in_another_process() -> None:
    """Hash seeds do not show."""
    code = (
        "import hashlib, sys\n"
        "from unit.kernels.test_structure import *\n"
        "paths = [p for p in SPECS if p.stem in ('m2rnn', 'mlstm', 'coupled_memories', 'slot_memory')]\n"
        "made = [compiled(p, s).generated for p in paths for s in STRATEGIES]\n"
        "print(hashlib.sha256(''.join(g.text + g.files['kernels.py.map.json'] for g in made).encode()).hexdigest())\n"
    )
    tests = Path(__file__).parents[2]
    results = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tests)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        results.add(done.stdout)
    assert len(results) == 1


@ALL
def test_line_map(path: Path, strategy: str) -> None:
    """Mapped lines lead to the text of the spec they were made from; names that both have agree."""
    made = compiled(path, strategy)
    source = path.read_text()
    data = json.loads(made.generated.files["kernels.py.map.json"])
    assert data["source"] == path.name
    generated, written = made.generated.text.splitlines(), source.splitlines()
    assert len(data["lines"]) > 5
    for number, (row, column, text) in data["lines"].items():
        line = generated[int(number) - 1]
        assert line.startswith("    ") and " = " in line
        assert written[row - 1][column - 1 :].startswith(text) and text
        function = re.search(r"_(tanh|softplus|logsigmoid|expm1|log1p)\(", line)
        if function and "def " not in source:
            near = "\n".join(written[row - 1 :])
            assert re.search(rf"{function[1]}|sigmoid|softplus|silu", near), (line, text)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_errors_in_a_running_kernel_lead_to_the_spec(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, sizes = zoo("m2rnn"), {"K": 3, "V": 2}
    given = arguments(program, sizes, steps=2, heads=1)
    options = KernelOptions(chunk=2)
    kernels = generated.kernels_for(triton_backend.build, program, sizes, options, strategy)
    (module,) = (m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == kernels.path)

    def broken(x: object) -> None:
        raise ArithmeticError("no tanh today")

    monkeypatch.setattr(module, "_tanh", broken)
    with pytest.raises(Exception) as caught:
        run(program, sizes, given, strategy, options=options)
    shown = "".join(traceback.format_exception(caught.value))
    assert "no tanh today" in shown
    place = re.search(r"from m2rnn\.rec:(\d+):(\d+): (.*)", shown)
    assert place is not None, shown
    text = (ZOO[0].parent / "m2rnn.rec").read_text().splitlines()[int(place[1]) - 1]
    assert text[int(place[2]) - 1 :].startswith("tanh(S @ W") and place[3].startswith("tanh(S @ W")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_length_builds_nothing(strategy: str) -> None:
    """New batches, lengths and numbers of heads use the modules that are there."""
    program, sizes = zoo("gla"), {"K": 3, "V": 2}
    run(program, sizes, arguments(program, sizes, steps=2), strategy, options=KernelOptions(chunk=2))
    modules, operators = set(sys.modules), len(generated._KERNELS)
    for steps, batch, heads in ((1, 1, 2), (3, 2, 1), (4, 1, 3)):
        given = arguments(program, sizes, steps=steps, batch=batch, heads=heads)
        run(program, sizes, given, strategy, options=KernelOptions(chunk=2), reverse=steps == 3)
    assert {name for name in set(sys.modules) - modules if "generated" in name} == set()
    assert len(generated._KERNELS) == operators


def test_the_line_map_stands_beside_the_module() -> None:
    program, sizes = zoo("gla"), {"K": 3, "V": 2}
    kernels = generated.kernels_for(triton_backend.build, program, sizes, KernelOptions(), "recurrent")
    found = read_map(Path(kernels.path))
    assert found.source == "gla.rec" and found.file == kernels.path
    assert Path(kernels.path).read_text() == kernels.compiled.generated.text


# ---------------------------------------------------------------- goldens


LEAKY = """recurrence leaky
dims D
state h[D]
input x[D], g
param w[D]
transition h' = sigmoid(g) * h + w * x
output y[D] = tanh(h')
"""


@pytest.mark.parametrize("strategy", ["recurrent", "scan"])
@pytest.mark.parametrize("which", ["infer", "adjoint"])
def test_kernel_ir(which: str, strategy: str, golden: Callable[[str, str], None]) -> None:
    made = compile_kernels(spec(LEAKY, "leaky.rec"), {"D": 20}, KernelOptions(), strategy)
    (kernel,) = (k for k in made.kernels if k.name == f"leaky_{which}")
    name = f"leaky_{which}.txt" if strategy == "recurrent" else f"leaky_{which}_{strategy}.txt"
    golden(name, show_kernel(kernel) + "\n")


def test_a_whole_module(golden: Callable[[str, str], None]) -> None:
    made = compile_kernels(zoo("m2rnn"), {"K": 64, "V": 64}, KernelOptions(precision="tf32"))
    golden("m2rnn_kernels.py.golden", made.generated.text)


def test_a_generated_module_imports_triton_only() -> None:
    text = compiled(ZOO[0], "recurrent").generated.text
    imports = [ast.unparse(node) for node in ast.parse(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert imports == ["import triton", "import triton.language as tl"]
