"""One step of every spec of ``tests/fixtures/unseen`` in plain PyTorch; see loops.py for the convention."""

from __future__ import annotations

import torch
from torch import exp, relu, sigmoid, tanh
from torch.nn.functional import layer_norm, silu, softplus
from unit.zoo.loops import Step, col, erase, l2norm, outer, row, scaled, times


def two_sided_delta(x, p, s):
    eye_k, eye_v = (torch.eye(n, dtype=torch.float64) for n in s.S.shape[-2:])
    kn, un = l2norm(x.k), l2norm(x.u)
    left = eye_k - x.b[..., None, None] * outer(kn, kn)
    right = eye_v - x.c[..., None, None] * outer(un, un)
    alpha = exp(-softplus(x.g))[..., None, None]
    S = alpha * left @ s.S @ right + x.b[..., None, None] * outer(kn, x.v)
    return {"S": S}, {"o": row(scaled(x.q), S)}


def coupled_memories(x, p, s):
    keep_a, keep_b = sigmoid(x.f)[..., None, None], sigmoid(x.g)[..., None, None]
    drive = s.A + outer(x.k, x.v - col(s.B, x.k))
    A = keep_a * s.A + (1 - keep_a) * tanh(layer_norm(drive, drive.shape[-1:], eps=1e-5))
    rms = x.k / torch.sqrt((x.k * x.k).mean(-1, keepdim=True) + 1e-6)
    B = keep_b * s.B + (1 - keep_b) * outer(x.v - row(x.k, A), rms)
    return {"A": A, "B": B}, {"o": row(x.q, A), "r": col(B, x.q)}


def slot_memory(x, p, s):
    read = torch.softmax(col(s.slots, col(p.Q, s.h)) + p.bias, -1)
    h = tanh(x.x + col(p.U, s.h) + row(read, s.slots))
    write = x.e[..., None] * torch.softmax(col(s.slots, scaled(h)) - p.bias, -1)
    slots = (1 - write[..., None]) * s.slots + outer(write, col(p.P, h))
    return {"h": h, "slots": slots}, {"o": h}


def multiplicative_lstm(x, p, s):
    m = x.xm * col(p.Um, s.h)
    c = sigmoid(x.xf + col(p.Uf, m)) * s.c + sigmoid(x.xi + col(p.Ui, m)) * tanh(x.xg + col(p.Ug, m))
    h = sigmoid(x.xo + col(p.Uo, m) + p.peep * c) * tanh(c)
    return {"h": h, "c": c}, {"y": h}


def rank_two_substeps(x, p, s):
    S = s.S
    for j in range(3):
        full = torch.diag_embed(sigmoid(x.a[..., j, :]))
        full = full - outer(x.e[..., j, :], x.p[..., j, :]) + outer(x.f[..., j, :], x.r[..., j, :])
        S = full @ S + outer(x.k[..., j, :], x.v[..., j, :])
    return {"S": S}, {"o": row(x.q, S)}


def running_softmax(x, p, s):
    score = p.sharp * x.s
    top = torch.maximum(s.top - x.lam, score)
    keep, new = exp(s.top - x.lam - top), exp(score - top)
    sum_w, sum_v = keep * s.sum_w + new, keep[..., None] * s.sum_v + new[..., None] * x.v
    outputs = {"average": sum_v / sum_w[..., None], "log_w": top + torch.log(sum_w)}
    return {"top": top, "sum_w": sum_w, "sum_v": sum_v}, outputs


def spiking(x, p, s):
    above = s.u >= 1 + s.tired
    fired, reset = above.double(), torch.where(above, 0.0, s.u)
    rising = torch.sign(s.u - s.last)
    drive = torch.where(x.on[..., None] > 0, x.x, 0.1 * x.x)
    u = (0.9 * reset + drive + col(p.W, fired)).clamp(-2, 2)
    tired = 0.9 * s.tired + 0.2 * fired * relu(rising)
    last = torch.where(s.u == 0, s.last, s.u)
    level = relu(u - tired) - torch.clamp(u.abs(), max=0.5)
    return {"u": u, "tired": tired, "last": last}, {"spikes": fired, "level": level}


def split_flow(x, p, s):
    push, pull = tanh(p.A[:, :2] * s.z[..., :2]), relu(s.z[..., 2:])
    z = x.x + col(p.W, torch.cat([pull, push], -1)) + 0.1 * s.line[..., :1]
    line = torch.cat([s.line[..., 1:], s.z[..., :1]], -1)
    return {"z": z, "line": line}, {"o": z.roll(1, -1), "late": line[..., 0] - line[..., 2]}


def two_key_erase(x, p, s):
    full = torch.diag_embed(sigmoid(x.g)) + outer(x.w1, x.r1) - outer(x.w2, x.r2)
    S = full @ s.S + outer(x.k, x.v)
    return {"S": S}, {"o": row(x.q, S)}


def right_erase(x, p, s):
    vn, beta = l2norm(x.v), 2 * sigmoid(x.b)
    S = erase(times(sigmoid(x.g), s.S).mT, vn, beta).mT + times(beta, outer(x.k, vn))
    return {"S": S}, {"o": row(scaled(x.q), S)}


def decay_between(x, p, s):
    (k0, k1), (v0, v1), (b0, b1) = x.k.unbind(-2), x.v.unbind(-2), x.beta.unbind(-1)
    S = times(x.alpha, erase(s.S, k0, b0) + times(b0, outer(k0, v0)))
    S = erase(S, k1, b1) + times(b1, outer(k1, v1))
    return {"S": S}, {"o": row(scaled(x.q), S)}


def two_writes(x, p, s):
    a = exp(-softplus(x.g))
    writes = torch.stack([x.k, -(1 - a) * x.p], -1) @ torch.stack([x.v, tanh(x.w)], -2)
    S = a[..., None] * s.S + writes
    return {"S": S}, {"o": row(x.q, S)}


def column_decay_erase(x, p, s):
    kn, beta = l2norm(x.k), sigmoid(x.b)
    S = erase(s.S, kn, beta) @ torch.diag_embed(exp(-softplus(x.g))) + times(beta, outer(kn, x.v))
    return {"S": S}, {"o": row(scaled(l2norm(x.q)), S)}


def normalised_bonus(x, p, s):
    kn = l2norm(x.k)
    read = row(x.q, s.S + outer(p.u * kn, x.v))
    S = times(x.alpha, erase(s.S, kn, x.beta)) + times(x.beta, outer(kn, x.v))
    return {"S": S}, {"o": p.scale * layer_norm(read, read.shape[-1:], eps=1e-5) * silu(x.z)}


def signed_normaliser(x, p, s):
    a, kp = tanh(p.sharp * x.g), exp(-x.k * x.k)
    S, n = times(a, s.S) + outer(kp, x.v), a[..., None] * s.n + kp
    weight = 1 + (x.q * n).sum(-1, keepdim=True).abs()
    return {"S": S, "n": n}, {"o": row(x.q, S) / weight}


def offset_householders(x, p, s):
    S = times(exp(-softplus(x.g)), s.S)
    for j in range(3):
        kn, beta = l2norm(x.k + p.offset[:, j]), x.beta[..., j]
        S = erase(S, kn, beta) + times(beta, outer(kn, x.v[..., j, :]))
    return {"S": S}, {"o": row(scaled(x.q), S), "before": row(l2norm(x.k), s.S)}


STEPS: dict[str, Step] = {
    "two_key_erase": two_key_erase,
    "right_erase": right_erase,
    "decay_between": decay_between,
    "two_writes": two_writes,
    "column_decay_erase": column_decay_erase,
    "normalised_bonus": normalised_bonus,
    "signed_normaliser": signed_normaliser,
    "offset_householders": offset_householders,
    "two_sided_delta": two_sided_delta,
    "two_sided_delta_free": two_sided_delta,
    "coupled_memories": coupled_memories,
    "slot_memory": slot_memory,
    "multiplicative_lstm": multiplicative_lstm,
    "rank_two_substeps": rank_two_substeps,
    "rank_two_substeps_free": rank_two_substeps,
    "running_softmax": running_softmax,
    "spiking": spiking,
    "split_flow": split_flow,
}
"""Pairs with and without `_free` say the same in operator and in free form."""
