"""Recurrences of the zoo on the chunk kernels of flash-linear-attention, where that is installed.

Its functions take what layers compute: decays as natural logarithms, write strengths, erase keys. All of that is
prepared before anything is timed, in the types that the library's own layers hand over; inputs and outputs are
[batch, time, heads, size] on both sides, and products are scaled by K^-0.5 except for RWKV-7. Written for version
0.6; a setting that a version does not know is left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

PACKAGES = ("fla-core", "flash-linear-attention")
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Peer:
    """A function of the library: where it is, what it takes from inputs and params of ours, and how it is set.

    ``prepare`` gives its tensors, of which ``log`` is the logarithm of decays. Scalar ones stay float32, as in the
    library's layers; those per channel (``rounded``) are of the inputs' type like everything else.
    """

    module: str
    function: str
    prepare: Callable[[Tensors], dict[str, Tensor]]
    log: str = "g"
    rounded: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, ours: Tensors, dtype: torch.dtype, *, exact: bool = False) -> dict[str, Tensor]:
        """Fresh leaves that ask for gradients; ``exact``: decays are float32 in any case."""
        with torch.no_grad():
            found = self.prepare({name: value.detach().float() for name, value in ours.items()})
        wide = set() if self.rounded and not exact else {self.log}
        return {
            name: value.to(torch.float32 if name in wide else dtype).contiguous().requires_grad_()
            for name, value in found.items()
        }

    def run(self, arguments: Tensors) -> tuple[Tensor]:
        """The output [B, T, H, V]; ImportError or AttributeError where there is no such function."""
        function = getattr(import_module(self.module), self.function)
        known = inspect.signature(inspect.unwrap(function)).parameters
        settings = {name: value for name, value in self.settings.items() if name in known}
        return (function(**arguments, **settings)[0],)


def installed() -> str | None:
    """The library's version, or None."""
    for name in PACKAGES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _gla(x: Tensors) -> dict[str, Tensor]:
    return {"q": x["q"], "k": x["k"], "v": x["v"], "g": logsigmoid(x["g"]) / 16}


def _delta_net(x: Tensors) -> dict[str, Tensor]:
    return {name: x[name] for name in ("q", "k", "v", "beta")}


def _gated_delta_net(x: Tensors) -> dict[str, Tensor]:
    log = -x["A_log"].exp() * softplus(x["a"] + x["dt_bias"])
    return {"q": x["q"], "k": x["k"], "v": x["v"], "g": log, "beta": 2 * x["b"].sigmoid()}


def _kda(x: Tensors) -> dict[str, Tensor]:
    log = -x["A_log"].exp()[:, None] * softplus(x["g"] + x["dt_bias"])
    return {"q": x["q"], "k": x["k"], "v": x["v"], "g": log, "beta": x["b"].sigmoid()}


def _rwkv7(x: Tensors) -> dict[str, Tensor]:
    erased = x["kappa"] * (x["kappa"].square().sum(-1, keepdim=True) + 1e-6).rsqrt()
    log = -0.60653066 * x["w"].sigmoid()
    return {"r": x["r"], "w": log, "k": x["k"], "v": x["v"], "a": -erased, "b": erased * x["a"].sigmoid()}


def _gated_delta_product(x: Tensors) -> dict[str, Tensor]:
    found = {"q": x["q"], "g": x["alpha"].log()}
    for name in ("k", "v", "beta"):  # [B, T, H, N, ...]: the N rows of a step become steps of their own
        found[name] = x[name].transpose(2, 3).flatten(1, 2)
    return found


_NORMED = {"use_qk_l2norm_in_kernel": True}

PEERS: dict[str, Peer] = {
    "gla": Peer("fla.ops.gla", "chunk_gla", _gla, rounded=True),
    "delta_net": Peer("fla.ops.delta_rule", "chunk_delta_rule", _delta_net, settings=_NORMED),
    "gated_delta_net": Peer(
        "fla.ops.gated_delta_rule", "chunk_gated_delta_rule", _gated_delta_net, settings=_NORMED
    ),
    "kda": Peer("fla.ops.kda", "chunk_kda", _kda, rounded=True, settings=_NORMED),
    # as the library's own layer sets it: the bound licenses its kernels on matrix units
    "rwkv7": Peer(
        "fla.ops.rwkv7", "chunk_rwkv7", _rwkv7, log="w", rounded=True,
        settings={"scale": 1.0, "safe_gate": True, "lower_bound": -0.61, "chunk_size": 64},
    ),
    "gated_delta_product": Peer(
        "fla.ops.gated_delta_product", "chunk_gated_delta_product", _gated_delta_product,
        settings={"num_householder": 2},
    ),
}  # fmt: skip
"""By the name of the recurrence."""
