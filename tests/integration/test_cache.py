"""Generated kernels in the cache: shared by processes, rebuilt when damaged, errors lead back to the spec."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
import torch

import recurra
from recurra.runtime.store.cache import Store, is_intact

SCRIPT = """
    import os
    os.environ["TRITON_INTERPRET"] = "1"
    import torch
    import recurra
    rec = recurra.load("recurrence kept\\nstate h\\ninput a\\ntransition h' = tanh(h + a)\\noutput o = h'\\n")
    a = torch.linspace(-1, 1, 4).reshape(1, 4, 1)
    print(torch.equal(rec(a=a, backend="triton"), rec(a=a, backend="triton")))
    torch.testing.assert_close(rec(a=a, backend="triton"), rec(a=a, backend="reference"))
"""


def start(cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "RECURRA_CACHE": str(cache)}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and out == "True\n", err


def test_two_processes_share_a_cache_that_then_gets_damaged(tmp_path: Path) -> None:
    running = [start(tmp_path) for _ in range(2)]
    for process in running:
        finish(process)
    (entry,) = Store(tmp_path).entries()
    assert entry.name.startswith("kept-") and (entry / "kernels.py").exists() and is_intact(entry)
    (entry / "kernels.py").write_text("half of a")
    finish(start(tmp_path))
    assert Store(tmp_path).entries() == [entry] and is_intact(entry)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only interpreted kernels have Python frames")
def test_errors_in_kernels_name_the_line_of_the_spec(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec = recurra.load("recurrence failing\nstate h\ninput a\ntransition h' = tanh(h + a) * sin(a)\noutput o = h'\n")
    a = torch.ones(1, 3, 1)
    rec(a=a, backend="triton")
    import triton.language as tl

    def broken(*args: object, **kwargs: object) -> None:
        raise ArithmeticError("out of order")

    monkeypatch.setattr(tl, "sin", broken)
    with pytest.raises(Exception) as caught:
        rec(a=a, backend="triton")
    shown = "".join(traceback.format_exception(caught.value))
    assert "out of order" in shown and "from <text>:4:" in shown
