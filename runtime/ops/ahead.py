"""Ahead-of-time compilation for GPUs that need not be there, with what the machine code uses.

Triton compiles for a target without its device; registers, spills and shared memory are read back from
the binary (NVIDIA) or the assembly (AMD). Run as a module it reads a request as JSON and prints rows as
JSON: callers start it as a process of its own, because Triton cannot compile where it interprets.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...compiler.codegen.triton import constants, strides
from ...compiler.codegen.triton_packed import CU_SEQLENS
from ...compiler.ir.program import Program
from ...compiler.kernels import compile_kernels
from ...compiler.lower.ends import VARIANT
from ...compiler.lower.kernel_ir import Kernel
from ...compiler.options import KernelOptions
from ...compiler.targets import TARGETS, Target, chunk_rows, register_limit, warps
from .launch import triton_version

TARGET_NAMES = tuple(known.name for known in TARGETS)

_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""What Triton's signatures call the types of its language."""

_MATRIX_UNIT = re.compile(r"\bmma\.sync|\bwgmma\.mma_async|\btcgen05\.mma|\bv_mfma_")


@dataclass(frozen=True)
class Resources:
    """What one kernel uses on one target: registers per thread, spilled bytes, bytes of shared memory,
    and how many instructions of the matrix unit its code has."""

    kernel: str
    target: str
    dtype: str
    precision: str
    warps: int
    registers: int
    spills: int
    shared: int
    matrix_instructions: int


def measure(
    program: Program,
    sizes: Mapping[str, int],
    *,
    targets: Iterable[str] = TARGET_NAMES,
    dtype: str = "bf16",
    precision: str = "tf32",
    heads: int = 8,
    strategy: str = "auto",
    packed: bool = False,
) -> list[Resources]:
    """Compile all kernels of a recurrence by one strategy for the targets, in a process of its own."""
    request = {
        "source": [program.source.name, program.source.text],
        "consts": dict(program.consts),
        "sizes": dict(sizes),
        "targets": list(targets),
        "dtype": dtype,
        "precision": precision,
        "heads": heads,
        "strategy": strategy,
        "packed": packed,
    }
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "recurra.runtime.ops.ahead"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program.name}: ahead-of-time compilation failed\n{done.stderr[-4000:]}")
    return [Resources(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def _measure_here(request: Mapping[str, Any]) -> Iterator[Resources]:
    from ...compiler.frontend import elaborate
    from ...dsl import Source, parse
    from ..store.loader import load_module

    program = elaborate(parse(Source(*request["source"])), request["consts"])
    operand = f"tl.{_TYPES[request['dtype']]}"  # as it is where nothing else is asked for
    options = KernelOptions(precision=request["precision"], operand=operand, packed=request["packed"], started=False)
    targets = [target for target in TARGETS if target.name in request["targets"]]
    made: dict[int | None, tuple[Any, dict[str, Kernel]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for rows in {chunk_rows(target.architecture): None for target in targets}:
            compiled = compile_kernels(program, request["sizes"], replace(options, rows=rows), request["strategy"])
            path = Path(folder) / f"kernels_{rows}.py"
            path.write_text(compiled.generated.text)
            module = load_module(path, f"recurra_ahead_{program.name}_{rows}")
            made[rows] = module, {k.name: k for k in compiled.kernels if VARIANT not in k.facts}
        for name in {name: None for _, kernels in made.values() for name in kernels}:
            for target in targets:
                module, kernels = made[chunk_rows(target.architecture)]
                yield _compile(module, kernels[name], target, request)


def _compile(module: Any, kernel: Kernel, target: Target, request: Mapping[str, Any]) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, attrs = _signature(kernel, request["dtype"])
    values: dict[str, Any] = {name: request["heads"] for name in constants(kernel)} | {"direction": 1}
    source = ASTSource(getattr(module, kernel.name), signature, values, attrs)
    chosen = warps(kernel, target.architecture, triton_version())
    gpu = GPUTarget(target.backend, target.architecture, target.warp)
    options = {"num_warps": chosen}
    built = triton.compile(source, target=gpu, options=options)
    # what follows is what the launcher does
    if built.metadata.shared > target.shared:
        options["num_stages"] = 1
        built = triton.compile(source, target=gpu, options=options)
    registers, spills = _usage(built)
    if spills and target.backend == "cuda":
        built = triton.compile(source, target=gpu, options={**options, "maxnreg": register_limit(chosen)})
        registers, spills = _usage(built)
    code = built.asm.get("ptx") or built.asm["amdgcn"]
    return Resources(
        kernel.name,
        target.name,
        request["dtype"],
        request["precision"],
        chosen,
        registers,
        spills,
        built.metadata.shared,
        len(_MATRIX_UNIT.findall(code)),
    )


def _signature(kernel: Kernel, dtype: str) -> tuple[dict[str, str], dict[tuple[int], list[list[Any]]]]:
    """Types of arguments, and that pointers are 16-byte aligned as torch's are."""
    signature: dict[str, str] = {}
    for tensor in kernel.tensors:
        signature[f"{tensor.name}_ptr"] = "*fp32" if tensor.compute or tensor.place == "head" else f"*{dtype}"
    for tensor in kernel.tensors:
        signature |= dict.fromkeys(strides(tensor), "i32")
    signature |= {CU_SEQLENS: "*i64"} if kernel.packed else {}
    signature |= dict.fromkeys(kernel.integers, "i32") | dict.fromkeys(("direction", *constants(kernel)), "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(kernel.tensors))}
    return signature, aligned


def _usage(built: Any) -> tuple[int, int]:
    """Registers per thread and spilled bytes."""
    if "cubin" not in built.asm:
        text = built.asm["amdgcn"]
        # scalar registers spill into lanes of vector registers: only scratch memory counts
        scratch = sum(int(n) for n in re.findall(r"\.private_segment_fixed_size:\s*(\d+)", text))
        return max(int(n) for n in re.findall(r"\.vgpr_count:\s*(\d+)", text)), scratch
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return found["REG"], found["STACK"] + found["LOCAL"]


if __name__ == "__main__":
    print(json.dumps([asdict(row) for row in _measure_here(json.load(sys.stdin))]))
