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


OPEN = {
    "test_three_chunks[no_writes-": "a recurrence that writes nothing has a cotangent that is no tile",
    "test_packed_grouped_backwards_from_the_declared_start[no_writes]": "the same",
    "test_chunks_of_sixty_four[mlstm-65]": "1.13 of the tolerance for the gradient of the running maximum's start",
    "test_tiles_share_what_they_have_in_common[oja-K-": "these tiles are refused by the layout",
    "test_tiles_share_what_they_have_in_common[members-V-": "these tiles are refused by the layout",
}
"""What chunk kernels do not meet yet, by the beginning of a test's name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Open ends of the chunk kernels fail as expected, and break the build once they are mended."""
    for item in items:
        if item.path.name == "test_chunk.py":
            for name, reason in OPEN.items():
                if item.name.startswith(name):
                    item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
