"""What a well-typed recurrence can still get wrong."""

from __future__ import annotations

from .layer import check_layer
from .ranges import check_ranges
from .sizes import check_sizes

__all__ = ["check_layer", "check_ranges", "check_sizes"]
