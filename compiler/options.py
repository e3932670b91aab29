"""What a user can choose about compiling one recurrence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

Precision = Literal["ieee", "tf32", "tf32x3"]


@dataclass(frozen=True)
class Options:
    """Choices for one compilation; the default leaves everything to the compiler.

    ``consts`` overrides consts of the spec by name, ``precision`` is the form of float32 matrix products
    in kernels (default: ``ieee`` for float32 inputs, ``tf32`` for 16-bit ones), ``checkpoint`` the number of
    steps between saved states (default: 16 on a GPU, on a CPU more where states are small), ``tiles`` the
    block of an independent axis by name. ValueError for anything else.
    """

    consts: tuple[tuple[str, float], ...] = ()
    precision: Precision | None = None
    checkpoint: int | None = None
    tiles: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.precision is not None and self.precision not in get_args(Precision):
            raise ValueError(f"no precision {self.precision!r}; there are {', '.join(get_args(Precision))}")
        if self.checkpoint is not None and (not isinstance(self.checkpoint, int) or self.checkpoint < 1):
            raise ValueError(f"checkpoint must be a whole number of steps >= 1, not {self.checkpoint!r}")
        for name, block in self.tiles:
            if not isinstance(block, int) or block < 1 or block & (block - 1):
                raise ValueError(f"the tile of {name} must be a power of two, not {block!r}")


@dataclass(frozen=True)
class KernelOptions:
    """What one set of kernels is specialised to, besides sizes.

    ``precision`` is the form of float32 matrix products on a GPU, ``chunk`` the steps between checkpoints
    (None: as the strategy finds), ``strided`` whether inputs come with strides instead of being contiguous, ``packed``
    whether sequences of different lengths come one after another, ``tiles`` sets the block of an axis by name,
    ``dtype`` is the type of the caller's tensors on a processor. ``operand`` is the element type of products of
    matrices over chunks, ``started`` whether start states are given, ``schedule`` how chunks are walked: ``fused``,
    ``split`` or ``auto``. ``few`` is for so few steps that one after another is best, where the strategy is open;
    ``two_pass``: a step by step backward takes two passes wherever it can, however small states are. ``rows`` is the
    most rows of a chunk with a large state that fit on the device (None: as many as others; targets.py).
    """

    precision: str = "ieee"
    chunk: int | None = None
    strided: bool = False
    packed: bool = False
    tiles: tuple[tuple[str, int], ...] = ()
    dtype: str = "float32"
    operand: str = "tl.float32"
    started: bool = True
    schedule: str = "auto"
    few: bool = False
    two_pass: bool = False
    rows: int | None = None

    def plain(self) -> tuple[object, ...]:
        """The arguments that make the same options: constants to ``torch.compile``, which sees the fields' defaults
        in an object of this class that was made while it traces."""
        return (
            self.precision, self.chunk, self.strided, self.packed, self.tiles, self.dtype, self.operand, self.started,
            self.schedule, self.few, self.two_pass, self.rows,
        )  # fmt: skip

    @staticmethod
    def of(options: Options, *, half: bool = False, strided: bool = False) -> KernelOptions:
        """What a user's options come to: exact products for float32 inputs, tensor-core ones for 16-bit inputs."""
        found = KernelOptions("tf32" if half else "ieee", options.checkpoint, strided, tiles=options.tiles)
        return found if options.precision is None else replace(found, precision=options.precision)
