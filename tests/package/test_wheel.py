"""What a user gets who has no checkout: a wheel, a fresh environment, an empty folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hepinf.runs.record import read_result

ROOT = Path(__file__).resolve().parents[2]
# Less than the smoke scale: the paper needs no more to run from an empty folder, and to do so twice alike.
LESS = {"seeds": 1, "epochs": 1, "classifier_epochs": 1, "score_epochs": 1, "quadrature_points": 30, "toys": 100}
LESS |= {"train_events": 5000, "validation_events": 5000, "test_events": 10_000, "study_events": 5000}
IGNORED = shutil.ignore_patterns(".git", ".venv", "_proc", "_docs", "build", "dist", "*.egg-info", "__pycache__")


def away(folder: str, names: list[str]) -> set[str]:
    """What a copy of the checkout does without; `runs` is a folder of results, but only at the top and in `nbs`."""
    results = {"runs"} & set(names) if Path(folder) in (ROOT, ROOT / "nbs") else set()
    return IGNORED(folder, names) | results


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the test environment and return its standard output; a failing one shows all it said."""
    unset = ("PYTHONPATH", "VIRTUAL_ENV", "HEPINF_PAPERS")
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The `bin` folder of a fresh environment with the wheel, built by way of the source distribution."""
    tmp = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(ROOT, tmp / "source", symlinks=True, ignore=away)
    call(sys.executable, "-m", "build", "--outdir", tmp / "dist", source, cwd=tmp)
    (wheel,) = (tmp / "dist").glob("*.whl")
    call(sys.executable, "-m", "venv", tmp / "venv", cwd=tmp)
    pip = [tmp / "venv/bin/python", "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    call(*pip, "-c", ROOT / "constraints.txt", f"{wheel}[run]", cwd=tmp)
    yield tmp / "venv" / "bin"
    shutil.rmtree(tmp)


def test_the_wheel_runs_a_paper_from_an_empty_folder_twice_alike(installed, tmp_path):
    where = "import hepinf; print(hepinf.__file__)"
    assert str(installed.parent) in call(installed / "python", "-c", where, cwd=tmp_path)
    listed = call(installed / "hepinf", "list", cwd=tmp_path)
    assert "inferno: " in listed and "--scale paper" in listed

    run = [installed / "hepinf", "run", "inferno", "--scale", "smoke"]
    run += [word for name, value in LESS.items() for word in ("-p", name, str(value))]
    said = call(*run, cwd=tmp_path)
    assert "| name" in said and "runs/inferno/result.json" in said
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    result = read_result(tmp_path / "runs/inferno/result.json")
    assert (result["paper"], result["scale"], result["environment"]["commit"]) == ("inferno", "smoke", None)
    assert result["results"]
    for figure in result["figures"]:
        assert (tmp_path / "runs/inferno" / figure).stat().st_size > 0

    call(*run, "-o", "again", cwd=tmp_path)
    again = read_result(tmp_path / "again/result.json")
    assert json.dumps(again["results"]) == json.dumps(result["results"]), "same seed, same machine, same numbers"


def test_the_wheel_carries_its_types_and_its_workflow(installed):
    (package,) = (installed.parent / "lib").glob("python*/site-packages/hepinf")
    assert (package / "py.typed").is_file()
    profiles = {path.parent.name for path in (package / "workflow").glob("profiles/*/config.yaml")}
    assert (package / "workflow/Snakefile").is_file() and profiles == {"slurm", "htcondor", "kubernetes"}
    assert {path.suffix for path in (package / "papers").iterdir()} == {".ipynb", ".yaml"}
