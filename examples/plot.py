"""The demo's picture: a language model's loss, and who learns parity."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from tasks import TRAINED_ON, LanguageRun, ParityRun, Text

INK, MUTED, BLUE, ORANGE = "#1f2430", "#8a90a0", "#2563eb", "#ea580c"
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8ee",
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2,
}


def draw(path: Path, text: Text, language: LanguageRun, parity: dict[str, ParityRun]) -> None:
    """Write the PNG; ``parity`` is by name of the spec, the one that fails first."""
    with plt.rc_context(STYLE):
        figure, (loss, learning, length) = plt.subplots(1, 3, figsize=(13.5, 4.2), layout="constrained")
        draw_loss(loss, text, language)
        draw_learning(learning, parity)
        draw_lengths(length, parity)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def draw_loss(axes: Axes, text: Text, run: LanguageRun) -> None:
    steps = len(run.curve)
    axes.set_title("gated_delta_net reads the standard library")
    axes.plot(range(1, steps + 1), run.curve, color=BLUE)
    for height, label, above in ((text.unigram, "byte frequencies alone", 4), (text.zlib, "zlib -9", -14)):
        axes.axhline(height, color=MUTED, linewidth=1, linestyle="--")
        axes.annotate(label, (steps, height), (0, above), textcoords="offset points", ha="right", color=MUTED)
    axes.plot([steps], [run.held_out], "o", color=BLUE)
    axes.annotate(
        f"held-out text: {run.held_out:.2f}",
        (steps, run.held_out),
        (0, 12),
        textcoords="offset points",
        ha="right",
        color=BLUE,
        fontweight="bold",
    )
    axes.set(xlabel="training step", ylabel="bits per byte", ylim=(0, max(run.curve) + 0.2), xlim=(0, steps * 1.02))


def draw_learning(axes: Axes, parity: dict[str, ParityRun]) -> None:
    axes.set_title(f"Learning parity of {TRAINED_ON} bits")
    for (name, run), color in zip(parity.items(), (ORANGE, BLUE), strict=True):
        axes.plot(range(1, len(run.curve) + 1), run.curve, color=color)
        at = 0.97 if run.curve[-1] > 0.75 else 0.57
        axes.annotate(name, (len(run.curve), at), ha="right", va="center", color=color, fontweight="bold")
    axes.axhline(0.5, color=MUTED, linewidth=1, linestyle="--")
    axes.annotate("guessing", (0, 0.5), (4, -32), textcoords="offset points", color=MUTED)
    axes.set(xlabel="training step", ylabel="right in the second half", ylim=(0.4, 1.03), xlim=(0, None))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def draw_lengths(axes: Axes, parity: dict[str, ParityRun]) -> None:
    axes.set_title("The same models on other lengths")
    for (name, run), color in zip(parity.items(), (ORANGE, BLUE), strict=True):
        axes.plot(list(run.by_length), list(run.by_length.values()), "o-", color=color, label=name)
    axes.axhline(0.5, color=MUTED, linewidth=1, linestyle="--")
    axes.axvline(TRAINED_ON, color=MUTED, linewidth=1, linestyle=":")
    axes.annotate(
        "trained on this", (TRAINED_ON, 0.75), (5, 0), textcoords="offset points", color=MUTED, rotation=90, va="center"
    )
    axes.set_xscale("log", base=2)
    lengths = list(next(iter(parity.values())).by_length)
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set(xlabel="bits in the sequence", ylabel="last answer right", ylim=(0.4, 1.03))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(frameon=False, loc="center right")
