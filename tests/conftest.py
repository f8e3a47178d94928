"""Shapes and types in the signatures are checked in every test; `tiny` is a paper that runs in seconds."""

import random
from pathlib import Path

import jaxtyping
import pytest
import typechecker

jaxtyping.jaxtyped = typechecker.jaxtyped
jaxtyping.install_import_hook("hepinf", "typechecker.check")

import torch  # noqa: E402

# Small tensors gain nothing from threads, and sums must not depend on the number of cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def single_precision():
    "A backend of pyhf may make float64 the default of the whole process; every test starts and ends without that."
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def same_choices():
    "The type checker looks at one element of a list, by chance; with a seed a test passes always or never."
    random.seed(1)


ROOT = Path(__file__).resolve().parent.parent

PARAMETERS = """\
scale = "smoke"  # smoke, laptop or paper
seed = 1  # of the random numbers
device = "auto"  # auto, cpu or cuda
output = ""  # folder for result.json and figures; empty: write nothing
benchmark = 0  # which of the points
rate = 0.5  # learning rate
betas = [0.9, 0.99]  # of the optimiser
label = "a"  # free text
fail = ""  # how to fail: raise, die, or silent
"""

WORK = """\
import os
import sys
import time

import matplotlib.pyplot as plt
import torch
from tqdm.auto import tqdm

from hepinf.runs.record import Run

run = Run("tiny", globals())
for _ in tqdm(range(3), desc="training"):
    pass
if fail == "raise":
    raise ValueError("3 bins are empty")
if fail == "die":
    # A kernel sends its output from another thread: a real death comes long after the last bar, so let that one go.
    sys.stderr.flush()
    time.sleep(1)
    os._exit(9)
generator = torch.Generator().manual_seed(seed)
run.add("table1/draw", torch.rand((), generator=generator) * rate, published=0.25, limit=0.1, source="Table 1")
run.add("table1/bad", float("nan"), reason="dead bins")
print("python", sys.executable)
"""

FIGURE = """\
fig, axis = plt.subplots()
axis.plot([0, benchmark])
run.figure(fig, "line")
"""


def write_tiny(folder: Path) -> Path:
    """Write the tiny paper with its scales to `folder`."""
    import nbformat

    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell("# A tiny paper", id="title"),
        v4.new_code_cell(PARAMETERS.strip(), id="parameters", metadata={"tags": ["parameters"]}),
        v4.new_code_cell(WORK.strip(), id="work"),
        v4.new_code_cell(FIGURE.strip(), id="figure"),
        v4.new_code_cell('if fail != "silent":\n    run.write()\nrun.table()', id="write"),
    ]
    path = folder / "tiny.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), path)
    path.with_suffix(".smoke.yaml").write_text("# cost: a second\nscale: smoke\n")
    path.with_suffix(".laptop.yaml").write_text("# cost: two seconds\nscale: laptop\nbenchmark: 2\nrate: 1\n")
    return path


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The tiny paper as the only paper, and an empty current folder."""
    (tmp_path / "papers").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HEPINF_PAPERS", str(tmp_path / "papers"))
    monkeypatch.chdir(tmp_path / "here")
    return write_tiny(tmp_path / "papers")
