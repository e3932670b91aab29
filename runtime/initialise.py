"""How params start: one rule per initialiser of the language, drawn per head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..compiler.ir.program import Param, Program
from ..compiler.ir.size import Size
from .errors import CallError
from .reference import evaluate


@dataclass(frozen=True)
class Draw:
    """What a rule may use: the shape, the rule's numbers, and where its chance comes from."""

    shape: tuple[int, ...]
    numbers: tuple[float, ...]
    generator: Generator | None
    device: torch.device

    def between(self, low: float, high: float) -> Tensor:
        """Uniform float64 numbers."""
        unit = torch.rand(self.shape, dtype=torch.float64, device=self.device, generator=self.generator)
        return low + (high - low) * unit

    def gaussian(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float64 numbers."""
        return torch.randn(shape, dtype=torch.float64, device=self.device, generator=self.generator)


Rule = Callable[[Draw], Tensor]


def initialise(
    program: Program,
    heads: int,
    sizes: Mapping[str, int],
    *,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """A start for every param, ``[heads, *axes]`` each, by name in the order of the spec.

    Numbers are drawn in float64 on the generator's device (default: the CPU) and then converted, so
    that a seed means the same on every device and at every dtype (default: torch's). CallError if a
    size is missing or an initialiser does not fit its param's shape.
    """
    home = generator.device if generator is not None else torch.device("cpu")
    result = {}
    for param in program.params:
        shape = (heads, *(_size(program, param, axis.size, sizes) for axis in param.axes))
        value = _start(program, param, Draw(shape, param.init.numbers, generator, home))
        result[param.name] = value.to(device=device, dtype=dtype or torch.get_default_dtype())
    return result


def _size(program: Program, param: Param, size: Size, sizes: Mapping[str, int]) -> int:
    try:
        return size.bind(sizes)
    except KeyError as missing:
        raise CallError(program.name, param.name, f"needs the size {missing.args[0]}") from None


def _start(program: Program, param: Param, draw: Draw) -> Tensor:
    init = param.init
    if init.rule == "expression":
        assert init.value is not None
        heads = torch.arange(draw.shape[0], dtype=torch.float64, device=draw.device)
        value = _of_head(program, init.value, heads)
        return value.reshape(-1, *(1 for _ in param.axes)).expand(draw.shape).clone()
    if init.rule in _MATRICES and len(param.axes) < 2:
        raise CallError(program.name, param.name, f"is initialised as {init.rule}, which needs a matrix")
    if init.rule == "spectral" and draw.shape[-1] != draw.shape[-2]:
        raise CallError(program.name, param.name, "is initialised as spectral, which needs a square matrix")
    return RULES[init.rule](draw)


# ---------------------------------------------------------------- the rules


def _zeros(draw: Draw) -> Tensor:
    return torch.zeros(draw.shape, dtype=torch.float64, device=draw.device)


def _ones(draw: Draw) -> Tensor:
    return torch.ones(draw.shape, dtype=torch.float64, device=draw.device)


def _identity(draw: Draw) -> Tensor:
    """Ones on the diagonal of the last two axes, also where they differ in size."""
    rows, columns = draw.shape[-2:]
    return torch.eye(rows, columns, dtype=torch.float64, device=draw.device).expand(draw.shape).clone()


def _normal(draw: Draw) -> Tensor:
    (std,) = draw.numbers
    return std * draw.gaussian(draw.shape)


def _uniform(draw: Draw) -> Tensor:
    low, high = draw.numbers
    return draw.between(low, high)


def _log_uniform(draw: Draw) -> Tensor:
    """Uniform on a logarithmic scale between two positive bounds."""
    low, high = draw.numbers
    return draw.between(math.log(low), math.log(high)).exp()


def _inv_softplus_log_uniform(draw: Draw) -> Tensor:
    """The x with ``softplus(x)`` log-uniform: the time-step bias of Mamba (Gu and Dao, 2023)."""
    y = _log_uniform(draw)
    return y + torch.log(-torch.expm1(-y))


def _orthogonal(draw: Draw) -> Tensor:
    """Orthonormal rows or columns, uniformly distributed (Mezzadri, 2007: fix the signs of QR)."""
    rows, columns = draw.shape[-2:]
    tall = (*draw.shape[:-2], max(rows, columns), min(rows, columns))
    q, r = torch.linalg.qr(draw.gaussian(tall))
    q = q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).unsqueeze(-2)
    return q if rows >= columns else q.mT.contiguous()


def _arange(draw: Draw) -> Tensor:
    """``first, first + step, ...`` along the last axis: the frequencies of S4D-Lin (Gu et al., 2022)."""
    first, step = draw.numbers
    last = first + step * torch.arange(draw.shape[-1], dtype=torch.float64, device=draw.device)
    return last.expand(draw.shape).clone()


def _hippo_real(draw: Draw) -> Tensor:
    """``log(1), log(2), ...`` along the last axis: minus the exponential is S4D-Real (Gu et al., 2022)."""
    last = torch.arange(1, draw.shape[-1] + 1, dtype=torch.float64, device=draw.device).log()
    return last.expand(draw.shape).clone()


def _spectral(draw: Draw) -> Tensor:
    """Uniform entries scaled to a spectral radius: an echo-state reservoir (Jaeger, 2001)."""
    (radius,) = draw.numbers
    value = draw.between(-1.0, 1.0)
    largest = torch.linalg.eigvals(value).abs().amax(-1)
    return value * (radius / largest)[..., None, None]


RULES: dict[str, Rule] = {
    "zeros": _zeros,
    "ones": _ones,
    "identity": _identity,
    "orthogonal": _orthogonal,
    "normal": _normal,
    "uniform": _uniform,
    "log_uniform": _log_uniform,
    "inv_softplus_log_uniform": _inv_softplus_log_uniform,
    "arange": _arange,
    "hippo_real": _hippo_real,
    "spectral": _spectral,
}
_MATRICES = ("identity", "orthogonal", "spectral")


def _of_head(program: Program, value: int, heads: Tensor) -> Tensor:
    """A scalar expression of the head index, for all heads at once."""
    return evaluate(program.body, [value], {("head", "head"): heads}, {}, 1, like=heads)[value]
