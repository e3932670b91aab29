"""Measuring: a recurrence against other ways to run it, beside the floors that bytes and operations set."""

from .ceilings import Ceilings, measure_ceilings
from .results import Benchmark, Row
from .run import bench
from .shape import Shape, shape_of
from .table import table

__all__ = ["Benchmark", "Ceilings", "Row", "Shape", "bench", "measure_ceilings", "shape_of", "table"]
