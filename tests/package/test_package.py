"""What is written by hand, what is generated from it, and what is promised about both, stay together."""

import filecmp
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from rendered import PAGES, broken

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
IGNORED = shutil.ignore_patterns(".git", ".venv", "_proc", "_docs", "build", "dist", "*.egg-info", "__pycache__")


def away(folder: str, names: list[str]) -> set[str]:
    """What a copy of the checkout does without; `runs` is a folder of results, but only at the top and in `nbs`."""
    results = {"runs"} & set(names) if Path(folder) in (ROOT, ROOT / "nbs") else set()
    return IGNORED(folder, names) | results


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command and return what it printed; a failing one shows all of it."""
    done = subprocess.run([*map(str, command)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


@pytest.fixture
def copy(tmp_path):
    """A copy of the checkout to work in."""
    return shutil.copytree(ROOT, tmp_path / "copy", symlinks=True, ignore=away)


def modules(package: Path) -> set[Path]:
    """The Python files of a package, relative to it."""
    return {path.relative_to(package) for path in package.rglob("*.py")}


def test_the_package_is_what_the_notebooks_export(copy):
    """nbdev_export never deletes, so the copy starts without any module."""
    for path in (copy / "hepinf").rglob("*.py"):
        if path != copy / "hepinf/__init__.py":  # the face is written by hand
            path.unlink()
    call(BIN / "nbdev_export", cwd=copy)
    assert modules(copy / "hepinf") == modules(ROOT / "hepinf")
    _, differ, errors = filecmp.cmpfiles(copy / "hepinf", ROOT / "hepinf", modules(ROOT / "hepinf"), shallow=False)
    assert (differ, errors) == ([], []), "run nbdev_export"


def test_the_notebooks_are_clean(copy):
    notebooks = sorted(path.relative_to(copy) for path in (copy / "nbs").rglob("*.ipynb"))
    call(BIN / "nbdev_clean", cwd=copy)
    _, differ, errors = filecmp.cmpfiles(copy, ROOT, notebooks, shallow=False)
    assert (differ, errors) == ([], []), "run nbdev_clean"


def test_the_readme_is_the_index(copy, tmp_path):
    call("make", "-s", "readme", f"BIN={BIN}", f"OUT={tmp_path}", cwd=copy)
    assert (ROOT / "README.md").read_text() == (tmp_path / "README.md").read_text(), "run make readme"
    for link in re.findall(r"\]\((?!http)(.*?)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), f"the README leads to {link}, which is not there"
    images = sorted(path.relative_to(ROOT) for path in (ROOT / "nbs/images").iterdir())
    assert filecmp.cmpfiles(copy, ROOT, images, shallow=False)[1:] == ([], []), "run make readme"


def test_imports_point_downwards():
    call(BIN / "lint-imports", "--no-cache", cwd=ROOT)


def pages(entries: list | str) -> list[str]:
    """The pages of a sidebar, from top to bottom; a pattern stands for the notebooks of its folder."""
    if isinstance(entries, str):
        found = sorted((ROOT / "nbs").glob(entries + ("" if entries.endswith(".ipynb") else ".ipynb")))
        return [str(path.relative_to(ROOT / "nbs")) for path in found]
    return [page for e in entries for page in pages(e.get("contents") or e["auto"] if isinstance(e, dict) else e)]


def test_the_sidebar_lists_every_notebook_once():
    sidebar = pages(yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["sidebar"]["contents"])
    there = sorted(str(path.relative_to(ROOT / "nbs")) for path in (ROOT / "nbs").rglob("*.ipynb"))
    assert sorted(sidebar) == [name for name in there if ".ipynb_checkpoints" not in name]
    assert (ROOT / "nbs/_quarto.yml").resolve() == ROOT / "_quarto.yml"


def test_the_documentation_processes(copy):
    code = "from nbdev.quarto import refresh_quarto_yml as refresh; from nbdev.serve import proc_nbs as process;"
    code += "refresh(); process(n_workers=2, force=True)"
    call(sys.executable, "-c", code, cwd=copy)
    call(BIN / "smalldocs", "render", "_proc", cwd=copy)
    sidebar = pages(yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["sidebar"]["contents"])
    site = copy / "_proc" / "_docs"
    missing = [page for page in sidebar if not (site / page).with_suffix(".html").is_file()]
    assert missing == []
    found = broken(site, ROOT)
    assert found == [], "\n".join(found)


def test_what_is_broken_on_a_page_is_named(tmp_path):
    page = "<title>a</title><h1 id='top-of-a'>a</h1><img src='figure.png'><a href='b.html#here'>b</a>"
    (tmp_path / "01_a.html").write_text(page + f"<a href='{PAGES}a.html#top-of-a'>a</a><a href='c.html'>c</a>")
    (tmp_path / "b.html").write_text("<h1>b</h1><a href='https://github.com/hepinf/hepinf/blob/main/lost.py'>lost</a>")
    assert [line.partition(":")[0] for line in broken(tmp_path, ROOT)] == ["01_a.html"] * 3 + ["b.html"] * 2
    assert [re.search("'(.*?)'|no title", line)[0] for line in broken(tmp_path, ROOT)] == [
        "'figure.png'",
        "'b.html#here'",
        "'c.html'",
        "no title",
        "'https://github.com/hepinf/hepinf/blob/main/lost.py'",
    ]


def test_every_citation_has_its_reference():
    known = set(re.findall(r"@\w+\{([\w-]+),", (ROOT / "nbs/references.bib").read_text()))
    texts = [path.read_text() for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    cited = {key for text in texts for key in re.findall(r"\[@([\w-]+)\]", text)}
    assert cited == known


def test_versions_agree():
    import hepinf

    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    version = settings["DEFAULT"]["version"]
    assert hepinf.__version__ == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_direct_requirement_is_pinned_for_the_reference_runs():
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    wanted = " ".join(value for key, value in settings["DEFAULT"].items() if key.endswith("requirements"))
    names = {re.match(r"[\w-]+", item)[0].lower() for item in wanted.split()}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line and not line.startswith("#")}
    assert names <= pinned, names - pinned
    assert not [line for line in lines if "+" in line], "a local version such as +cpu exists in no package index"


EVERY_MODULE = """
import importlib, pkgutil, sys
import hepinf
names = [m.name for m in pkgutil.walk_packages(hepinf.__path__, "hepinf.") if not m.ispkg]
names.remove("hepinf._modidx")
for name in names:
    importlib.import_module(name)
print(len(names), *sorted({m.partition(".")[0] for m in sys.modules} - set(sys.stdlib_module_names)))
"""


def test_imports_are_light_and_need_no_extra():
    """Of what is installed, only what torch and the requirements load at once: scipy.stats alone takes as long as torch
    does, half of it, and figures as long again. None of the extras is needed.
    """
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    extras = " ".join(value for key, value in config["DEFAULT"].items() if key.endswith("_requirements"))
    absent = {re.split(r"[=<>~]", entry)[0].replace("-", "_") for entry in extras.split()} | {
        "yaml",
        "IPython",
        "pythia8",
    }
    block = f"import sys\nfor name in {sorted(absent)}:\n    sys.modules[name] = None\n"
    number, *loaded = call(sys.executable, "-c", block + EVERY_MODULE, cwd=ROOT).split()
    assert int(number) > 60
    assert not {"scipy", "FrEIA", "normflows", "corner", "pandas", "jsonpatch", "pooch"} & set(loaded), loaded


def test_the_version_is_one_number():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    version = config["DEFAULT"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert call(sys.executable, "-c", "import hepinf; print(hepinf.__version__)", cwd=ROOT).strip() == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    recipe = (ROOT / "recipe" / "meta.yaml").read_text()
    assert f'{{% set version = "{version}" %}}' in recipe
    wanted = {name.lower() for name in config["DEFAULT"]["requirements"].replace(">=", " >=").split()}
    other = {"pytorch": "torch", "matplotlib-base": "matplotlib"}  # names that conda has for them
    run = recipe.partition("  run:\n")[2].partition("\n\n")[0]
    entries = [line.removeprefix("    - ") for line in run.splitlines()]
    assert {other.get(word, word) for entry in entries[1:] for word in entry.split()} == wanted
    assert entries[0] == f"python >={config['DEFAULT']['min_python']}"
