"""What the README tells a reader to type does what it says, run literally."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
SHELL = [text for kind, text in BLOCKS if kind == "sh" and not text.startswith("make ")]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader has pasted the first shell block: it writes the spec that all others use."""
    folder = tmp_path_factory.mktemp("readme")
    done = shell(SHELL[0], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def shell(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block with the environment's commands on the path; the first failure ends it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        ["bash", "-e", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )


def test_there_is_something_to_run():
    assert len(SHELL) == 2
    assert len(PYTHON) == 3


@pytest.mark.parametrize("block", SHELL[1:])
def test_shell_blocks(folder, block):
    done = shell(block, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_python_blocks(folder, monkeypatch, capsys):
    """One session, as pasted; training must at least halve the loss of guessing."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for number, block in enumerate(PYTHON):
        exec(compile(block, f"README block {number}", "exec"), names)
    loss, guessing = map(float, re.findall(r"\d\.\d+", capsys.readouterr().out))
    assert loss < guessing / 2


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_verbs_are_those_of_the_command():
    from recurra.cli import VERBS

    listed = re.findall(r"^\| `recurra (\w+)", README, re.MULTILINE)
    assert sorted(listed) == sorted(VERBS)


def test_the_zoo_table_lists_every_file():
    table = README[README.index("## The zoo") : README.index("## Speed on a CPU")]
    listed = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line[:3] == "| `"))
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "examples" / "zoo").glob("*.rec"))


@pytest.mark.parametrize("page", ["README.md", "docs/language.md"])
def test_links_to_files_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("page, pattern", [("README.md", "<<'END'\n(.*?)^END"), ("docs/language.md", "```\n(.*?)^```")])
def test_files_shown_in_the_pages_are_right_and_formatted(page, pattern):
    from recurra.compiler.pipeline import compile_source
    from recurra.dsl.formatter import format_source
    from recurra.dsl.source import Source

    shown = re.findall(pattern, (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    files = [Source(page, text) for text in shown if text.startswith("recurrence ")]
    assert files
    for file in files:
        assert compile_source(file).program.outputs
        assert format_source(file) == file.text
