"""What all tests share: a private cache, one thread per worker, interpreted kernels, and goldens."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/kfd")):
    # Without a GPU kernels are interpreted. Triton must know before torch.compile imports it.
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile("recurra", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("recurra")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write goldens instead of comparing with them")


def pytest_configure(config: pytest.Config) -> None:
    """Give the whole run, its workers and its subprocesses one cache of their own."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.mkdtemp(prefix="recurra-tests-")
        os.environ["RECURRA_CACHE"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a device where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA or ROCm device"))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with ``tests/golden/NAME``; ``--update-golden`` writes it."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run pytest with --update-golden and read what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RECURRA_CACHE", str(folder))
    yield folder
