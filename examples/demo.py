"""A tour of Recurra on two CPU cores, in under five minutes: `make demo`.

A `.rec` file is checked, explained, verified and shown as the kernels it becomes; a small language model built from
it learns to write Python; and two nearly equal recurrences meet parity, which only one of them can learn. The
losses are drawn to out/demo.png.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.syntax import Syntax
from rich.text import Text

from recurra.dsl.highlight import to_terminal
from recurra.dsl.source import Source

ROOT = Path(__file__).resolve().parent.parent
SPEC = Path("examples/zoo/gated_delta_net.rec")
LANGUAGE_STEPS, PARITY_STEPS = 480, 500

console = Console()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--steps", type=int, default=LANGUAGE_STEPS, help="training steps of the language model")
    arguments.add_argument("--parity-steps", type=int, default=PARITY_STEPS, help="training steps on parity")
    arguments.add_argument("--out", type=Path, default=ROOT / "out" / "demo.png", help="where the plot goes")
    options = arguments.parse_args()
    began = time.perf_counter()
    torch.set_num_threads(1)  # steps of this size are too small to share between cores
    compiler_tour()
    train_and_draw(options.steps, options.parity_steps, options.out)
    console.print(f"\nPlot written to [bold]{options.out}[/] after {time.perf_counter() - began:.0f} s in all.")


# ---------------------------------------------------------------- the compiler


def compiler_tour() -> None:
    """What a user types at a new spec, and what comes back."""
    console.rule("[bold]1. One file becomes a verified recurrence")
    source = Source(SPEC.name, (ROOT / SPEC).read_text(encoding="utf-8"))
    console.print(Text.from_ansi(to_terminal(source).rstrip()))
    recurra("check", str(SPEC))
    recurra("explain", str(SPEC))
    recurra("verify", str(SPEC))
    recurra("show", "source", str(SPEC), part="    for i in range")


def recurra(*words: str, part: str = "") -> None:
    """Run one verb of the command line and show what it prints; of Python only the part that begins so."""
    console.print(f"\n[bold green]$[/] [bold]recurra {' '.join(words)}[/]")
    command = [sys.executable, "-m", "recurra", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE if part else None, text=True)
    if done.returncode:
        sys.exit(f"recurra {words[0]} failed with exit code {done.returncode}")
    if part:
        before, found, after = done.stdout.partition(part)
        shown, _, rest = (found + after).partition("\n\n")
        console.print(f"[dim]... {before.count(chr(10))} lines[/]")
        console.print(Syntax(shown, "python", background_color="default"))
        console.print(f"[dim]... {rest.count(chr(10))} more lines, the backward pass among them[/]")


# ---------------------------------------------------------------- learning


def train_and_draw(steps: int, parity_steps: int, out: Path) -> None:
    """The language model, then parity, then the picture."""
    from plot import draw
    from tasks import language_model, standard_library, train_language, train_parity, write

    console.rule("[bold]2. A language model made of it learns to write Python")
    text, model = standard_library(), language_model()
    size = sum(p.numel() for p in model.parameters())
    console.print(
        f"{size / 1e3:.0f} thousand parameters, {text.size / 1e6:.1f} MB of the standard library's source. "
        f"Byte frequencies alone need {text.unigram:.2f} bits per byte, zlib -9 {text.zlib:.2f}."
    )
    with progress("gated_delta_net", steps) as report:
        language = train_language(model, text, steps, report)
    console.print(f"On text it has not seen: [bold]{language.held_out:.2f} bits per byte[/]. It writes:")
    console.print(Panel(write(model, "import ", 320), border_style="dim"), markup=False, highlight=False)

    console.rule("[bold]3. Parity: one digit in the spec decides")
    console.print(
        "delta_net takes [bold]beta in [0, 1][/bold], delta_net_neg [bold]beta in [0, 2][/bold]: "
        "only beyond 1 can a write flip a sign, and flipping is what counting modulo 2 needs."
    )
    runs = {}
    for negative, name in ((False, "delta_net"), (True, "delta_net_neg")):
        with progress(name, parity_steps) as report:
            runs[name] = train_parity(negative, parity_steps, report)
    for name, run in runs.items():
        parts = ", ".join(f"{length}: {right:.0%}" for length, right in run.by_length.items())
        console.print(f"[bold]{name:14}[/] last answer right, by number of bits: {parts}")
    draw(out, text, language, runs)


@contextmanager
def progress(name: str, steps: int) -> Iterator[Callable[[str], None]]:
    """A progress bar; the function it gives moves it on and shows a text beside it."""
    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=steps, note="")
        yield lambda note: bar.update(task, advance=1, note=note)


if __name__ == "__main__":
    main()
