"""What the source tree must keep to: directions of imports, light front ends, packages that are all listed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = {"recurra": 4, "runtime": 3, "compiler": 2, "dsl": 1, "codegen_templates": 0}
HEAVY = ("torch", "triton", "sympy", "jinja2", "rich", "matplotlib")


def sources(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def module_of(path: Path) -> list[str]:
    """The package parts of a file as it is installed, the file's own name last."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return parts if parts[0] == "recurra" else ["recurra", *parts]


def imports(path: Path, late: bool = True) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything a file imports; without ``late`` not what functions import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if not late and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skipped.update(ast.walk(node))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(child for statement in node.body for child in ast.walk(statement))
    for node in ast.walk(tree):
        if node in skipped and not late:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.lineno, node.module or ""
                continue
            base = module_of(path)[: -node.level]
            for alias in node.names:
                yield node.lineno, ".".join([*base, *(node.module.split(".") if node.module else [alias.name])])


def folder_of(name: str) -> str | None:
    """The source folder of a module of Recurra, None for others' modules."""
    parts = name.split(".")
    if parts[0] != "recurra":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FOLDERS else "recurra"


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_downwards(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(folder)
        for line, name in imports(path)
        if (target := folder_of(name)) is not None
        and (FOLDERS[target] > FOLDERS[folder] or (folder == "codegen_templates" and target != folder))
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_source_folders_import_each_other_relatively(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(folder)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "recurra")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "recurra" for alias in node.names))
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", ["dsl", "compiler"])
def test_the_compiler_knows_neither_torch_nor_triton(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(folder)
        for line, name in imports(path)
        if name.split(".")[0] in ("torch", "triton")
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", ["dsl", "compiler"])
def test_heavy_libraries_are_imported_where_they_are_used(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(folder)
        for line, name in imports(path, late=False)
        if name.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_importing_recurra_is_light() -> None:
    script = f"import sys, recurra; print([m for m in {HEAVY!r} if m in sys.modules], len(recurra.__all__))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("]")[0] == "["
    assert int(done.stdout.split("]")[1]) < 20


def test_public_names_are_there() -> None:
    import recurra

    for name in recurra.__all__:
        assert getattr(recurra, name).__doc__, f"{name} has no docstring"
    assert set(recurra.__all__) <= set(dir(recurra))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        recurra.lod  # noqa: B018


def test_every_package_is_listed() -> None:
    tomllib = pytest.importorskip("tomllib")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    places = settings["package-dir"]
    found = set()
    for folder in (*FOLDERS, "examples/zoo"):
        for path in (ROOT / folder).rglob("__init__.py"):
            place = path.parent.relative_to(ROOT).as_posix()
            name = next(
                (
                    name + place[len(at) :].replace("/", ".")
                    for name, at in places.items()
                    if f"{place}/".startswith(f"{at}/")
                ),
                place,
            )
            found.add(name)
    assert found == set(settings["packages"])


def test_every_folder_of_sources_is_a_package() -> None:
    folders = {path.parent for folder in FOLDERS for path in sources(folder)}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_constraints_pin_what_is_asked_for() -> None:
    """Every direct dependency is pinned to exactly one version, which its range allows."""
    tomllib = pytest.importorskip("tomllib")
    from packaging.requirements import Requirement

    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            pins[requirement.name.lower()] = specifier.version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    for text in [*asked, *project["optional-dependencies"]["plot"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name.lower()]), text
