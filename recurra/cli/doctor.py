"""``recurra doctor``: what is installed, what it will use, and what to mend."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import typer

from . import specs

_PACKAGES = ("recurra", "torch", "triton", "sympy", "lark", "jinja2", "numpy", "typer", "rich", "filelock")


def doctor(as_json: specs.AsJson = False) -> None:
    """Show what is installed and how to mend it.

    Versions, devices, compilers, what CPU kernels are compiled for, the cache; exit code 1 if something is wrong.
    """
    data = diagnose()
    if as_json:
        specs.print_json(data)
    else:
        _print(data)
    if data["problems"]:
        raise typer.Exit(1)


def diagnose() -> dict[str, Any]:
    """Everything that ``doctor`` prints, as plain data."""
    problems: list[str] = []
    versions = {name: _version(name) for name in _PACKAGES}
    for name in ("torch", "sympy", "lark", "jinja2"):
        if versions[name] is None:
            problems.append(f"{name} is missing: pip install {name}")
    compilers = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
    devices = _devices(problems) if versions["torch"] else []
    if len(devices) > 1 and not compilers:
        problems.append("Triton needs a C compiler to start kernels: install gcc or clang")
    if len(devices) > 1 and versions["triton"] is None:
        problems.append("a GPU is here but Triton is not: pip install triton")
    native = _native(problems) if versions["torch"] else None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": devices,
        "compilers": compilers,
        "native": native,
        "cache": _cache(problems),
        "backends": _backends(devices),
        "problems": problems,
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices(problems: list[str]) -> list[dict[str, Any]]:
    import torch

    found: list[dict[str, Any]] = [{"device": "cpu", "name": f"{torch.get_num_threads()} threads"}]
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") and torch.version.cuda is None and torch.version.hip is None:
            problems.append("this torch has no GPU support but a driver is here: install a CUDA build of torch")
        return found
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        kind = "gfx" if torch.version.hip else "sm"
        found.append(
            {
                "device": f"cuda:{index}",
                "name": properties.name,
                "architecture": getattr(properties, "gcnArchName", f"{kind}_{properties.major}{properties.minor}"),
                "memory_gb": round(properties.total_memory / 2**30, 1),
                "multiprocessors": properties.multi_processor_count,
            }
        )
    return found


def _native(problems: list[str]) -> dict[str, Any] | None:
    """The C++ compiler of the cpu backend and what it compiles for, None if there is none that works."""
    from ..runtime.errors import NoCompiler
    from ..runtime.store.toolchain import toolchain

    try:
        found = toolchain()
    except NoCompiler as error:
        problems.append(f"recurrences run slowly on a CPU: {error}")
        return None
    return {
        "compiler": found.compiler,
        "version": found.version,
        "vectors": found.vectors,
        "openmp": found.openmp,
    }


def _cache(problems: list[str]) -> dict[str, Any]:
    from ..runtime.store.cache import Store, is_intact

    store = Store()
    entries = store.entries()
    broken = [entry.name for entry in entries if not is_intact(entry)]
    size = sum(file.stat().st_size for entry in entries for file in entry.rglob("*") if file.is_file())
    writable = _writable(store.folder)
    if not writable:
        problems.append(f"{store.folder} cannot be written: set RECURRA_CACHE to a folder that can")
    return {
        "folder": str(store.folder),
        "writable": writable,
        "entries": len(entries),
        "bytes": size,
        "broken": broken,  # rebuilt when they are next needed
    }


def _writable(folder: Path) -> bool:
    """Whether the folder, or the nearest one above it that exists, can be written."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK)
    return False


def _backends(devices: list[dict[str, Any]]) -> dict[str, str]:
    """What ``auto`` picks on each device, for a recurrence without peculiarities."""
    if not devices:
        return {}
    import torch

    from ..runtime.backends import Task, choose
    from ..runtime.recurrence import load
    from .new import STARTER

    program = load(STARTER.format(name="plain")).program
    sizes = {dim.name: 64 for dim in program.dims}
    picked = {}
    for device in devices:
        task = Task(program, sizes, torch.float32, torch.device(device["device"]))
        picked[device["device"]] = choose("auto", task).backend.name
    return picked


def _print(data: dict[str, Any]) -> None:
    print(f"Python {data['python']} on {data['platform']} ({sys.executable})")
    print("versions  " + "  ".join(f"{name} {found or '-'}" for name, found in data["versions"].items()))
    for device in data["devices"]:
        details = ", ".join(str(value) for key, value in device.items() if key != "device")
        print(f"device    {device['device']}: {details}; auto picks {data['backends'][device['device']]}")
    print(f"compilers {', '.join(data['compilers']) or 'none'}")
    native = data["native"]
    if native is not None:
        threads = "threads by OpenMP" if native["openmp"] else "no threads, since there is no OpenMP for it"
        print(f"native    {native['version']} ({native['compiler']}), {native['vectors']} vectors, {threads}")
    cache = data["cache"]
    state = "" if cache["writable"] else ", not writable"
    broken = f", {len(cache['broken'])} to rebuild" if cache["broken"] else ""
    entries = f"{cache['entries']} entries" if cache["entries"] != 1 else "1 entry"
    print(f"cache     {cache['folder']}: {entries}, {cache['bytes'] / 1024:.0f} kB{broken}{state}")
    for problem in data["problems"]:
        print(f"problem   {problem}")
    if not data["problems"]:
        print("no problems")
