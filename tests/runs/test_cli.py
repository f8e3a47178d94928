"""The command `hepinf`: what it prints, writes, and returns, also when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from hepinf.core.errors import RunError
from hepinf.runs.cli import main
from hepinf.runs.notebook import store
from hepinf.runs.record import read_result


def test_list_shows_scales_and_costs_without_loading_anything_heavy(tiny):
    code = (
        "import sys; from hepinf.runs.cli import main; main(['list']);"
        "assert not {'torch', 'papermill', 'yaml', 'matplotlib'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "tiny: A tiny paper\n    --scale smoke   a second\n    --scale laptop  two seconds\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run tny", "unknown paper 'tny'; did you mean 'tiny'?"),
        ("run xxxxx", "unknown paper 'xxxxx'; choose from: tiny"),
        ("run tiny --scale lptop", "unknown scale 'lptop'; did you mean 'laptop'?"),
        ("run tiny -p benchmrk 2", "unknown parameter of tiny 'benchmrk'; did you mean 'benchmark'?"),
        ("run tiny -p benchmark 2.5", "parameter 'benchmark' takes a value of type int, like 0, not 2.5"),
        ("run tiny -p benchmark true", "parameter 'benchmark' takes a value of type int, like 0, not True"),
        ("run tiny -p rate inf", "parameter 'rate' takes a value of type float, like 0.5, not 'inf'"),
        ("run tiny -p rate Infinity", "parameter 'rate' must be finite, not inf"),
        ("run tiny -p betas [1,x]", "parameter 'betas[1]' takes a value of type float, like 0.9, not 'x'"),
        ("run tiny -p output x", "parameter 'output' is set by the option --output"),
        ("run tiny --device gpu", "unknown device 'gpu'; choose from: auto, cpu, cuda"),
    ],
)
def test_a_wrong_question_is_answered_in_one_line_and_leaves_nothing(tiny, capsys, arguments, said):
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"hepinf: {said}\n")
    assert list(Path().iterdir()) == []


def test_a_run_leaves_notebook_record_and_figure_and_prints_the_table(tiny, capfd, monkeypatch, tmp_path):
    # A foreign kernel of the same name, and a backend that would hide the figure.
    foreign = tmp_path / "data" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("TQDM_MININTERVAL", "0")

    assert main("run tiny -p seed 3 -p betas [1,0.5] -p label 7 --device cpu".split()) == 0
    said = capfd.readouterr()
    folder = Path("runs/tiny")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["figures/line.png", "notebook.ipynb", "result.json"]

    result = read_result(folder / "result.json")
    assert (result["paper"], result["scale"], result["seed"]) == ("tiny", "laptop", 3)
    expected = dict(scale="laptop", seed=3, device="cpu", benchmark=2, rate=1.0, betas=[1.0, 0.5], label="7", fail="")
    assert result["parameters"] == expected
    assert result["environment"]["device"] == "cpu"
    assert result["figures"] == ["figures/line.png"]
    assert [r["name"] for r in result["results"]] == ["table1/draw", "table1/bad"]
    assert (result["results"][1]["value"], result["results"][1]["reason"]) == (None, "dead bins")

    assert "| table1/draw | 0.2500" in said.out
    for place in ("runs/tiny/notebook.ipynb", "runs/tiny/result.json", "runs/tiny/figures (1 PNG)"):
        assert place in said.out
    assert "training: 100%" in said.err

    cells = {cell.id: cell for cell in nbformat.read(folder / "notebook.ipynb", as_version=4).cells}
    text = "".join(out.text for out in cells["work"].outputs if out.get("name") == "stdout")
    assert text.strip() == f"python {sys.executable}"
    bars = "".join(out.text for out in cells["work"].outputs if out.get("name") == "stderr")
    assert bars.count("training") == 1 and "Warning" not in bars
    assert any("image/png" in out.get("data", {}) for out in cells["figure"].outputs)


def test_plain_papermill_gives_the_same_results(tiny):
    import papermill

    assert main("run tiny --scale laptop -p seed 5 -o cli".split()) == 0
    values = {"scale": "laptop", "benchmark": 2, "rate": 1, "seed": 5, "output": "plain"}
    papermill.execute_notebook(tiny, "plain.ipynb", values, progress_bar=False)
    assert read_result("plain/result.json")["results"] == read_result("cli/result.json")["results"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise", ["tiny failed in cell 'work' (In [3])", "ValueError: 3 bins are empty"]),
        ("die", ["tiny failed in or after cell 'work'", "DeadKernelError", "try a smaller --scale"]),
        ("silent", ["wrote no result.json"]),
    ],
)
def test_a_failing_notebook_is_told_in_one_screen_and_kept(tiny, capfd, how, said):
    out = Path("out")
    (out / "figures").mkdir(parents=True)
    for name in ("notebook.ipynb", "mine.txt", "figures/mine.png", "figures/old.png"):
        (out / name).write_text("before")
    old = dict(schema=1, paper="tiny", scale="smoke", parameters={}, seed=1, seconds=1.0, results=[])
    old |= dict(
        environment=dict.fromkeys(["hepinf", "torch", "python", "device", "commit"]), figures=["figures/old.png"]
    )
    (out / "result.json").write_text(json.dumps(old))
    read_result(out / "result.json")

    assert main(["run", "tiny", "--scale", "smoke", "-o", "out", "-p", "fail", how]) == 1
    captured = capfd.readouterr()
    message = captured.err[captured.err.index("hepinf: ") :]
    assert all(part in message for part in said), message
    assert len(message.splitlines()) < 24 and "Traceback" not in message
    assert captured.out == ""
    assert not (out / "result.json").exists() and not (out / "figures/old.png").exists()
    assert (out / "mine.txt").read_text() == (out / "figures/mine.png").read_text() == "before"
    kept = nbformat.read(out / "notebook.ipynb", as_version=4)
    assert any("training" in str(cell.get("outputs")) for cell in kept.cells)


def test_a_folder_that_cannot_be_written_is_one_line(tiny, capsys):
    Path("file").write_text("")
    assert main("run tiny -o file/out".split()) == 1
    said = capsys.readouterr().err
    assert said.startswith("hepinf: cannot write to ") and said.count("\n") == 1


def test_without_the_run_extra_it_says_what_to_install(tiny, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert main(["run", "tiny"]) == 1
    said = capsys.readouterr().err
    assert 'pip install "hepinf[run]"' in said and said.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_store_copies_outputs_by_cell_id_and_only_for_unchanged_cells(tiny, capsys):
    before = nbformat.read(tiny, as_version=4)
    assert main("run tiny --scale smoke -p seed 2 --store".split()) == 0
    stored = nbformat.read(tiny, as_version=4)
    assert [(c.id, c.source, c.metadata) for c in stored.cells] == [(c.id, c.source, c.metadata) for c in before.cells]
    assert stored.metadata == before.metadata
    outputs = {cell.id: cell.outputs for cell in stored.cells if cell.cell_type == "code"}
    assert outputs["parameters"] == []
    assert [out.get("name") for out in outputs["work"]] == ["stdout"], "no progress bar"
    assert "| table1/draw" in outputs["write"][0].data["text/markdown"]
    assert {cell.execution_count for cell in stored.cells if cell.cell_type == "code"} == {None}

    edited = tiny.read_text().replace("axis.plot", "axis.step")
    tiny.write_text(edited)
    with pytest.raises(RunError, match="cell 'figure' of tiny changed since the run"):
        store("tiny", "runs/tiny")
    assert tiny.read_text() == edited
