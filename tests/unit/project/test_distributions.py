"""The wheel and the source distribution carry everything, the grammar and the templates included."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXT = """recurrence fading
dims K, V
state S[K, V]
input q[K], k[K], v[V], f
transition S' = sigmoid(f) * S + outer(k, v)
output o[V] = q @ S'
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it, from a copy of what is under version control."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    files = _tracked()
    for name in files:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)], cwd=copy)
    return out


def _tracked() -> list[str]:
    """Files of the checkout, or of an unpacked source distribution."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]


def _run(command: list[str], **kwargs: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _data_files() -> set[str]:
    places = {"dsl": "recurra/dsl", "codegen_templates": "recurra/codegen_templates", "examples/zoo": "recurra/zoo"}
    names = {"recurra/py.typed"}
    for folder, place in places.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".lark", ".jinja", ".rec"):
                names.add(f"{place}/{path.relative_to(ROOT / folder).as_posix()}")
    return names


def test_the_wheel_carries_grammar_templates_and_zoo(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert _data_files() <= names
    assert {name.split("/")[0] for name in names} == {"recurra", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert not any("test" in name for name in names if name.startswith("recurra/"))


def test_the_source_distribution_carries_the_same(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "recurra/py.typed", "dsl/grammar.lark"} <= names
    zoo = {f"examples/zoo/{path.name}" for path in (ROOT / "examples/zoo").glob("*.rec")}
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "codegen_templates").rglob("*.jinja")}
    assert zoo | templates <= names


def test_an_installed_wheel_compiles_a_spec(built: Path, tmp_path: Path) -> None:
    """Installed into an empty folder, run elsewhere, with nothing of the checkout on the path."""
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    _run(install)
    (tmp_path / "fading.rec").write_text(TEXT)
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in str(f)]\n"
        "import recurra, torch\n"
        f"assert recurra.__file__.startswith({str(site)!r}), recurra.__file__\n"
        "rec = recurra.load('fading.rec')\n"
        "k, v, f = torch.ones(1, 3, 2, 4), torch.ones(1, 3, 2, 5), torch.zeros(1, 3, 2)\n"
        "o = rec(q=k, k=k, v=v, f=f)\n"
        "assert o.shape == (1, 3, 2, 5) and o[0, :, 0, 0].tolist() == [4.0, 6.0, 7.0], o\n"
        "assert 'def ' in rec.source('triton')\n"
        "from recurra.cli.new import zoo\n"
        "assert 'lstm' in zoo()\n"
    )
    environment = {**os.environ, "RECURRA_CACHE": str(tmp_path / "cache")}
    _run([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    check = f"import sys; sys.path.insert(0, {str(site)!r}); from recurra.cli import main; main()"
    assert "no errors" in _run([sys.executable, "-c", check, "check", "fading.rec"], cwd=tmp_path, env=environment)
