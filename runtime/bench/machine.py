"""Where and with what something was measured, without saying which machine it was."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def circumstances(device: torch.device, load: float | None) -> dict[str, Any]:
    """Date, machine, versions, commit, and the load before anything ran, as plain data for JSON."""
    return {
        "date": now(),
        "commit": commit(),
        "load_before": load,
        "machine": machine(device),
        "versions": versions(),
    }


def now() -> str:
    """Date and time, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def machine(device: torch.device) -> dict[str, Any]:
    """The processor, its cores and the threads that torch uses, memory in GiB, the device if it is another."""
    found = {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
    return found


def load() -> float | None:
    """How many processes wanted to run in the last minute; times taken on a busy machine say little."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):  # not a POSIX system
        return None


def busy(load: float | None) -> str:
    """A warning if half of the cores or more had work before anything was measured, or nothing."""
    cores = os.cpu_count() or 1
    if load is None or load < cores / 2:
        return ""
    return f"other work ran on this machine (load {load:g} on {cores} cores), which disturbs times"


def versions() -> dict[str, str | None]:
    """Python, the C++ compiler, and the packages that times depend on; None for what is not there."""
    found: dict[str, str | None] = {"python": platform.python_version(), "compiler": _compiler()}
    for package in ("recurra", "torch", "triton"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def commit() -> str | None:
    """The commit of the source tree, with ``+`` where files under version control have changed since."""
    here = Path(__file__).resolve()
    if _output("git", "-C", str(here.parent), "ls-files", "--error-unmatch", here.name) is None:
        return None  # installed somewhere, perhaps inside of another tree
    changed = _output("git", "-C", str(here.parents[2]), "status", "--porcelain", "--untracked-files=no")
    name = _output("git", "-C", str(here.parent), "rev-parse", "--short=12", "HEAD")
    return None if name is None else name + ("+" if changed else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (ValueError, OSError, AttributeError):  # not a POSIX system
        return None


def _compiler() -> str | None:
    for name in (os.environ.get("CXX", ""), "g++", "clang++"):
        path = shutil.which(name) if name else None
        said = _output(path, "--version") if path else None
        if said:
            return said.splitlines()[0]
    return None


def _output(*command: str) -> str | None:
    """What a command prints, None if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
