"""What `import hepinf as hi` gives: light, complete, known to type checkers, as is every page that readers copy."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hepinf

ROOT = Path(__file__).resolve().parents[2]
FACE = ast.parse((ROOT / "hepinf/__init__.py").read_text(encoding="utf-8"))
WINGS = sorted(path.name for path in (ROOT / "hepinf").iterdir() if (path / "__init__.py").is_file())


def python(code: str, *options: str) -> str:
    "What a fresh interpreter prints."
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def typed() -> dict[str, str]:
    "Names that a type checker sees, and their modules."
    (block,) = [node for node in FACE.body if isinstance(node, ast.If)]
    return {alias.asname: node.module or "" for node in block.body for alias in node.names}


def test_the_face_has_the_names_and_the_wings():
    names = set(hepinf.__all__)
    assert len(names) == len(hepinf.__all__) and set(WINGS) <= names
    assert set(dir(hepinf)) == names | {"__version__"}
    assert 40 <= len(names) - len(WINGS) <= 55


@pytest.mark.parametrize("name", sorted(hepinf.__all__))
def test_every_name_is_there_and_public_where_it_lives(name):
    value = getattr(hepinf, name)
    if name in WINGS:
        assert value.__name__ == f"hepinf.{name}"
    else:
        module = sys.modules[f"hepinf.{typed()[name]}"]
        assert name in module.__all__ and getattr(module, name) is value


def test_a_type_checker_sees_what_is_there():
    assert set(typed()) == set(hepinf.__all__)
    assert {name: home for name, home in typed().items() if home} == hepinf._HOME


def test_the_bare_import_loads_nothing():
    loaded = python("import sys, hepinf; print(*{m.partition('.')[0] for m in sys.modules})").split()
    assert "torch" not in loaded and "numpy" not in loaded


def test_an_unknown_name_is_answered_by_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'upper_limit'"):
        hepinf.uper_limit  # noqa: B018


def example_of(name: str) -> str:
    "The runnable lines of the docstring of a name of the face."
    value = getattr(hepinf, name)
    return "\n".join(re.findall(r"^\s*(?:>>>|\.\.\.) (.*)$", value.__doc__ or "", re.M))


@pytest.mark.parametrize("name", sorted(set(hepinf.__all__) - set(WINGS)))
def test_every_name_has_an_example_that_runs(name):
    code = example_of(name)
    assert code, f"{name} has no example in its docstring"
    exec(compile(code, name, "exec"), {"hi": hepinf})


def imports_of(source: str) -> list[str]:
    "The statements of a cell that import from hepinf."
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    try:
        nodes = ast.walk(ast.parse("\n".join(lines)))
    except SyntaxError:
        return []
    return [
        ast.unparse(node)
        for node in nodes
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hepinf"))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("hepinf") for alias in node.names))
    ]


def test_a_strict_type_checker_accepts_what_readers_copy(tmp_path):
    """The imports of papers, tutorials, pages of the wings and README, and the README's code itself.

    A package with `py.typed` promises its types: a name that a page imports must be one that its module exports.
    """
    notebooks = ROOT / "nbs"
    pages = [notebooks / "index.ipynb", *sorted(notebooks.glob("*/index.ipynb"))]
    pages += [path for folder in ("papers", "tutorials") for path in sorted((notebooks / folder).glob("*.ipynb"))]
    lines: dict[str, None] = {}
    for page in pages:
        for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                lines |= dict.fromkeys(imports_of("".join(cell["source"])))
    (tmp_path / "imports.py").write_text("\n".join(lines) + "\n")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "readme.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", readme, re.S)))
    options = ["--no-implicit-reexport", "--follow-imports=silent", "--no-incremental", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, "--cache-dir", tmp_path / "cache"]
    done = subprocess.run(
        [*map(str, command), "imports.py", "readme.py"], capture_output=True, text=True, cwd=tmp_path,
        env={"PATH": "", "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    complaints = [line for line in done.stdout.splitlines() if "hepinf" in line and "import-untyped" not in line]
    assert complaints == [] and done.returncode in (0, 1), done.stdout + done.stderr
