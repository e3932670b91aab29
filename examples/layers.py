"""Layers assembled by hand around compiled recurrences: projections in plain torch, the recurrence in between.

Every mixer maps ``x [B, T, d_model]`` and the state it left behind to ``y`` and its new state, so that one and the
same call trains on whole sequences (state ``None``) and generates one token at a time (T = 1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import recurra

ZOO = Path(__file__).parent / "zoo"


class ShortConv(nn.Module):
    """A causal depthwise convolution and a silu; its state is the last ``width - 1`` positions."""

    def __init__(self, channels: int, width: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, 1, width) / width**0.5)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        channels, _, width = self.weight.shape
        if state is None:
            state = x.new_zeros(len(x), width - 1, channels)
        x = torch.cat([state, x], 1)
        return F.silu(F.conv1d(x.mT, self.weight, groups=channels)).mT, x[:, 1 - width :]


class GatedDeltaNet(nn.Module):
    """The layer of zoo/gated_delta_net.rec."""

    def __init__(self, d_model: int, heads: int, K: int, V: int) -> None:
        super().__init__()
        self.recurrence = recurra.load(ZOO / "gated_delta_net.rec")
        self.params = nn.ParameterDict(self.recurrence.init_params(heads=heads, K=K, V=V))
        self.heads, self.widths = heads, [heads * K, heads * K, heads * V]
        self.qkv = nn.Linear(d_model, sum(self.widths), bias=False)
        self.conv = ShortConv(sum(self.widths))
        self.ab = nn.Linear(d_model, 2 * heads)
        self.gate = nn.Linear(d_model, heads * V, bias=False)
        self.norm = nn.RMSNorm(V)
        self.out = nn.Linear(heads * V, d_model, bias=False)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        window, initial = state or (None, None)
        mixed, window = self.conv(self.qkv(x), window)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.widths, -1))
        a, b = self.ab(x).chunk(2, -1)
        o, final = self.recurrence(q=q, k=k, v=v, a=a, b=b, **self.params, initial=initial, return_state=True)
        return self.out(self.norm(o).flatten(2) * F.silu(self.gate(x))), (window, final)


class DeltaNet(nn.Module):
    """The bare recurrence of zoo/delta_net.rec, or with ``negative`` of zoo/delta_net_neg.rec."""

    def __init__(self, d_model: int, heads: int, K: int, V: int, negative: bool) -> None:
        super().__init__()
        self.recurrence = recurra.load(ZOO / ("delta_net_neg.rec" if negative else "delta_net.rec"))
        self.heads, self.widths, self.top = heads, [heads * K, heads * K, heads * V], 2 if negative else 1
        self.qkv = nn.Linear(d_model, sum(self.widths), bias=False)
        self.beta = nn.Linear(d_model, heads)
        self.out = nn.Linear(heads * V, d_model, bias=False)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(x).split(self.widths, -1))
        beta = self.top * torch.sigmoid(self.beta(x))
        o, final = self.recurrence(q=q, k=k, v=v, beta=beta, initial=state, return_state=True)
        return self.out(o.flatten(2)), final


class Block(nn.Module):
    """Mixer over time, then a perceptron over channels, each behind a norm and with a residual."""

    def __init__(self, d_model: int, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer, self.before, self.between = mixer, nn.RMSNorm(d_model), nn.RMSNorm(d_model)
        self.mlp = nn.Sequential(nn.Linear(d_model, 3 * d_model), nn.SiLU(), nn.Linear(3 * d_model, d_model))

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.mixer(self.before(x), state)
        x = x + y
        return x + self.mlp(self.between(x)), state


class Model(nn.Module):
    """Tokens ``[B, T]`` to logits ``[B, T, classes]``."""

    def __init__(self, tokens: int, d_model: int, mixers: list[nn.Module], classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, d_model)
        self.blocks = nn.ModuleList(Block(d_model, mixer) for mixer in mixers)
        self.norm = nn.RMSNorm(d_model)
        self.head = nn.Linear(d_model, classes)

    def forward(self, tokens: Tensor, states: list[Any] | None = None) -> tuple[Tensor, list[Any]]:
        x, new = self.embed(tokens), []
        for block, state in zip(self.blocks, states or [None] * len(self.blocks), strict=True):
            x, state = block(x, state)
            new.append(state)
        return self.head(self.norm(x)), new
