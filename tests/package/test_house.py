"""The rules of the house, counted: short cells, small modules, few arguments, one meaning for each public name."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hepinf"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "_modidx.py"))
NOTEBOOKS = sorted((ROOT / "nbs").glob("[0-9]*/*.ipynb"))
WINGS = sorted({path.parent for path in NOTEBOOKS})


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def cells(notebook: Path) -> Iterator[tuple[str, str, str]]:
    "Id, kind and source of every cell."
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        yield cell["id"], cell["cell_type"], "".join(cell["source"])


def exported(source: str) -> bool:
    return re.match(r"#\s*\|\s*exporti?\s*$", source.partition("\n")[0]) is not None


def is_dataclass(node: ast.AST) -> bool:
    "Whether a class is a dataclass; its fields, with their comments, are a table."
    return isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def public_names(module: Path) -> list[str]:
    "What `__all__` of a module says."
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def test_an_exported_cell_has_at_most_forty_lines():
    long = []
    for notebook in NOTEBOOKS:
        for cell, kind, source in cells(notebook):
            lines = len(source.splitlines()) - 1  # without the directive
            if (
                kind == "code"
                and exported(source)
                and lines > 40
                and not any(map(is_dataclass, ast.parse(source).body))
            ):
                long.append(f"{name_of(notebook)} {cell}: {lines}")
    assert long == []


def test_a_module_has_at_most_three_hundred_lines():
    long = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 300} == {}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def test_a_function_has_at_most_eight_parameters():
    many = []
    for path in MODULES:
        for function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            count = len([a for a in arguments if a.arg not in ("self", "cls")])
            if count > 8:
                many.append(f"{name_of(path)} {function.name}: {count}")
    assert many == []


def test_public_names_are_few_and_have_one_meaning():
    names = Counter(name for path in MODULES for name in public_names(path))
    assert [name for name, count in names.items() if count > 1] == []
    assert names.total() <= 350


def test_nothing_public_takes_whatever_comes():
    "No `**options: Any`, no Ellipsis for 'not given', no settings gathered from `locals()`."
    found = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        for function in functions(tree):
            keywords = function.args.kwarg
            typed = keywords is not None and keywords.annotation is not None and "Any" not in ast.unparse(keywords)
            typed |= function.name == "replace"  # of a dataclass, which knows its fields
            if keywords is not None and not typed and not function.name.startswith("_"):
                found.append(f"{name_of(path)} {function.name}: **{keywords.arg}")
            defaults = [d for d in [*function.args.defaults, *function.args.kw_defaults] if d is not None]
            if any(isinstance(d, ast.Constant) and d.value is ... for d in defaults):
                found.append(f"{name_of(path)} {function.name}: Ellipsis as a default")
        found += [f"{name_of(path)}: locals()" for _ in re.findall(r"\blocals\(\)", text)]
        found += [f"{name_of(path)}: {m}" for m in re.findall(r"^[A-Z]\w+\.\w+(?:, [A-Z]\w+\.\w+)* = .*", text, re.M)]
    assert found == []


def documented(tree: ast.Module, public: list[str]) -> Iterator[tuple[str, ast.AST]]:
    "Public functions and classes of a module, and the public methods of the classes."
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in public:
            yield node.name, node
            for child in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                    yield f"{node.name}.{child.name}", child


def test_every_public_name_says_what_it_is():
    silent = []
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, node in documented(tree, public_names(path)):
            if len(ast.get_docstring(node) or "") < 12:  # type: ignore[arg-type]
                silent.append(f"{name_of(path)} {name}")
    assert silent == []


@pytest.mark.parametrize("wing", WINGS, ids=lambda path: path.name)
def test_a_wing_has_its_folder_its_page_and_its_modules(wing):
    "One folder of notebooks for one folder of modules, and a page that links to each of them."
    package = PACKAGE / re.sub(r"^\d+_", "", wing.name)
    page = wing / "index.ipynb"
    notebooks = [path for path in wing.glob("*.ipynb") if path != page]
    exports = {}
    for path in notebooks:
        sources = [source for _, kind, source in cells(path) if kind == "code"]
        (target,) = [m[1] for source in sources if (m := re.match(r"#\| default_exp (\S+)$", source))]
        exports[PACKAGE / (target.replace(".", "/") + ".py")] = path
    assert set(exports) == {path for path in package.rglob("*.py") if path.name != "__init__.py"}
    text = "\n".join(source for _, kind, source in cells(page) if kind == "markdown")
    assert [path.name for path in notebooks if f"({path.name}" not in text] == []


def test_directives_are_written_in_one_form():
    odd = [
        f"{name_of(notebook)} {cell}"
        for notebook in NOTEBOOKS
        for cell, kind, source in cells(notebook)
        if kind == "code" and re.search(r"^#( \||\|\S)", source, re.M)
    ]
    assert odd == []


def test_a_cell_imports_or_computes():
    "nbdev runs every cell with an import when it builds the documentation, and none of the others that define nothing."
    mixed = []
    for notebook in NOTEBOOKS:
        for cell, kind, source in cells(notebook):
            if kind == "code" and not exported(source) and not source.lstrip().startswith(("%", "!")):
                body = ast.parse(source).body
                imports = [isinstance(node, ast.Import | ast.ImportFrom) for node in body]
                if any(imports) and not all(imports):
                    mixed.append(f"{name_of(notebook)} {cell}")
    assert mixed == []


def test_formulas_have_single_backslashes():
    "A doubled backslash before a letter is a line break and the letter, not a Greek one."
    doubled = [
        f"{name_of(notebook)} {cell}"
        for notebook in sorted((ROOT / "nbs").rglob("*.ipynb"))
        if ".ipynb_checkpoints" not in notebook.parts
        for cell, kind, source in cells(notebook)
        if kind == "markdown" and re.search(r"\\\\[a-zA-Z]{2,}", source)
    ]
    assert doubled == []
