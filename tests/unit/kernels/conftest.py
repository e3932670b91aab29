"""What tests of kernels share."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
from unit.kernels import vectorised


@pytest.fixture(autouse=True)
def scans_by_doubling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreted scans take all rows at once, unless a test is marked ``slow_scans``."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
    if interpreted and request.node.get_closest_marker("slow_scans") is None:
        vectorised.patch(monkeypatch)
