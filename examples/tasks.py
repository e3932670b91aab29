"""The demo's two tasks: bytes of Python's standard library, and parity; each with its data and training loop."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from layers import DeltaNet, GatedDeltaNet, Model
from torch import Tensor, nn

Report = Callable[[str], None]
"""Called once per training step with what to show beside the progress bar."""


def descend(model: nn.Module, losses: Callable[[], Tensor], steps: int, rate: float) -> Iterator[Tensor]:
    """Train with AdamW, a short warm-up and a cosine decay; yields every step's loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    for step in range(steps):
        warm, decay = min(1.0, (step + 1) / 30), 0.5 + 0.5 * math.cos(math.pi * step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * (0.1 + 0.9 * decay)
        loss = losses()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.detach()


# ---------------------------------------------------------------- bytes


@dataclass
class Text:
    """Bytes to learn from, bytes to be tested on, and what simpler predictors need for the latter."""

    train: Tensor
    held_out: Tensor
    size: int
    unigram: float
    zlib: float


def standard_library() -> Text:
    """The source of Python's own standard library, its last twentieth held out."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    text = b"\n".join(path.read_bytes() for path in files)
    cut = len(text) * 19 // 20
    train, held_out = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in (text[:cut], text[cut:]))
    share = (torch.bincount(train, minlength=256).float() + 1) / (len(train) + 256)
    unigram = -share[held_out.long()].log2().mean().item()
    return Text(train, held_out, len(text), unigram, 8 * len(zlib.compress(text[cut:], 9)) / len(text[cut:]))


def windows(text: Tensor, count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random stretches ``[count, length]`` and the same moved on by one byte."""
    starts = torch.randint(len(text) - length, (count,), generator=generator)
    chosen = text[starts[:, None] + torch.arange(length + 1)].long()
    return chosen[:, :-1], chosen[:, 1:]


@dataclass
class LanguageRun:
    """What training left behind: smoothed bits per byte by step, and on held-out text."""

    curve: list[float] = field(default_factory=list)
    held_out: float = math.nan


def language_model(d_model: int = 128) -> Model:
    """Two gated delta-rule blocks over bytes."""
    torch.manual_seed(0)
    return Model(256, d_model, [GatedDeltaNet(d_model, heads=4, K=16, V=16) for _ in range(2)], 256)


def train_language(model: Model, text: Text, steps: int, report: Report) -> LanguageRun:
    """Next-byte prediction on windows of 96 bytes."""
    generator, run = torch.Generator().manual_seed(1), LanguageRun()

    def losses() -> Tensor:
        return bits(model, *windows(text.train, 16, 96, generator))

    for loss in descend(model, losses, steps, 4e-3):
        last = run.curve[-1] if run.curve else loss.item()
        run.curve.append(0.95 * last + 0.05 * loss.item())
        report(f"{run.curve[-1]:.2f} bits per byte")
    with torch.no_grad():
        run.held_out = bits(model, *windows(text.held_out, 128, 96, generator)).item()
    return run


def bits(model: Model, tokens: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in bits per byte."""
    logits, _ = model(tokens)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) / math.log(2)


@torch.no_grad()
def write(model: Model, prompt: str, length: int, temperature: float = 0.9) -> str:
    """Continue a prompt byte by byte: the state carries everything, so a byte costs the same at any position."""
    generator, states = torch.Generator().manual_seed(2), None
    tokens, written = torch.tensor([list(prompt.encode())]), bytearray(prompt.encode())
    for _ in range(length):
        logits, states = model(tokens, states)
        tokens = torch.multinomial(F.softmax(logits[:, -1] / temperature, -1), 1, generator=generator)
        written.append(int(tokens))
    return written.decode("utf-8", "replace")


# ---------------------------------------------------------------- parity

TRAINED_ON = 32
TESTED_ON = (16, 32, 64, 128, 256, 512)


@dataclass
class ParityRun:
    """Accuracy on the second half of the training sequences by step, and on the last bit by length."""

    curve: list[float] = field(default_factory=list)
    by_length: dict[int, float] = field(default_factory=dict)


def parity(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random bits and, at each position, whether the ones so far are odd in number."""
    bits = torch.randint(2, (count, length), generator=generator)
    return bits, bits.cumsum(1) % 2


def train_parity(negative: bool, steps: int, report: Report) -> ParityRun:
    """One DeltaNet block on sequences of 32 bits, then tested on up to 512."""
    torch.manual_seed(0)
    model = Model(2, 32, [DeltaNet(32, heads=2, K=8, V=8, negative=negative)], 2)
    generator, run = torch.Generator().manual_seed(1), ParityRun()

    def losses() -> Tensor:
        tokens, targets = parity(64, TRAINED_ON, generator)
        logits, _ = model(tokens)
        late = slice(TRAINED_ON // 2, None)
        run.curve.append((logits.argmax(-1) == targets)[:, late].float().mean().item())
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    for _ in descend(model, losses, steps, 5e-3):
        report(f"{run.curve[-1]:.0%} right")
    with torch.no_grad():
        for length in TESTED_ON:
            tokens, targets = parity(512, length, generator)
            logits, _ = model(tokens)
            run.by_length[length] = (logits.argmax(-1) == targets)[:, -1].float().mean().item()
    return run
