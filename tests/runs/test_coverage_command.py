"""The command `hepinf coverage`: the answer of the library, kept through kills, refused in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hepinf as hi
from hepinf.infer import toy_study as library
from hepinf.runs.cli import main
from hepinf.workspaces.schema import example_workspace


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "The current folder, with the small workspace."
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ws.json").write_text(json.dumps(example_workspace()))
    return tmp_path


def run(line: str) -> dict:
    "The file that a command leaves."
    assert main(["coverage", *line.split(), "-o", "out.json"]) == 0
    return json.loads(Path("out.json").read_text())


def test_the_answer_is_that_of_the_library(folder, capsys):
    content = run("ws.json --toys 300 --nuisances prior --templates proportional --truth mu=0.5 --seed 3 --levels 0.9")
    model = hi.BinnedModel.from_workspace(example_workspace())
    options = {"truth": {"mu": 0.5}, "nuisances": "prior", "templates": "proportional"}
    same = hi.coverage(model, toys=300, levels=(0.9,), seed=3, **options)
    result = content["result"]
    assert result["levels"] == [{"level": 0.9, "parabolic": [*same.parabolic[0]], "profile": [*same.profile[0]]}]
    assert result["bias"] == [same.bias.value, same.bias.error] and result["error"] == same.error
    assert result["toys"] == 300 and result["problems"] == list(same.problems)
    assert [len(chunk["q"]) for chunk in content["chunks"]] == [250, 50]
    assert capsys.readouterr().out == f"{same}\nwritten to out.json\n"


def test_without_a_file_the_table_is_printed(folder, capsys):
    assert main("coverage ws.json --toys 20".split()) == 0
    assert "| profile, 68.3%" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["ws.json"]


def test_a_killed_run_goes_on_and_gives_the_identical_file(folder):
    line = "ws.json --toys 1200 --nuisances prior"
    code = "import sys; from hepinf.runs.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "coverage", *line.split(), "-o", "out.json"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not Path("out.json").exists() and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = json.loads(Path("out.json").read_text())
    assert kept["result"] is None or len(kept["chunks"]) == 5
    resumed = run(line)
    assert resumed["chunks"][: len(kept["chunks"])] == kept["chunks"]
    Path("out.json").unlink()
    assert run(line) == resumed


def test_only_what_is_missing_is_fitted(folder, monkeypatch):
    whole, fitted = run("ws.json --toys 750"), []
    chunk = library.Study.chunk

    def counted(self, number, rows):
        fitted.append((number, rows))
        return chunk(self, number, rows)

    monkeypatch.setattr(library.Study, "chunk", counted)
    Path("out.json").write_text(json.dumps({**whole, "chunks": [whole["chunks"][0], whole["chunks"][2]]}))
    assert run("ws.json --toys 750") == whole and fitted == [(1, 250)]
    fitted.clear()
    more = run("ws.json --toys 800 --levels 0.5")
    assert fitted == [(3, 50)] and more["chunks"][:3] == whole["chunks"] and more["result"]["toys"] == 800


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ws.json --seed 1", "seed 0, not 1"),
        ("ws.json --nuisances prior", "nuisances 'auxiliary', not 'prior'"),
        ("ws.json --templates proportional", "templates 'fixed', not 'proportional'"),
        ("ws.json --truth mu=2", "truth {}, not {'mu': 2.0}"),
        ("other.json", "workspace "),
    ],
)
def test_a_file_of_another_study_is_refused_and_stays(folder, capsys, line, said):
    run("ws.json --toys 20")
    before = Path("out.json").read_bytes()
    other = example_workspace()
    other["observations"][0]["data"][0] += 1
    other["channels"][0]["samples"][0]["data"][0] += 1
    Path("other.json").write_text(json.dumps(other))
    capsys.readouterr()
    assert main(["coverage", *line.split(), "-o", "out.json"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"hepinf: out.json is of another study ({said}") and error.count("\n") == 1
    assert Path("out.json").read_bytes() == before


@pytest.mark.parametrize("text", ["no json", "[]", '{"chunks": []}', '{"settings": {}, "chunks": [{"number": 0}]}'])
def test_a_file_that_is_something_else_is_not_overwritten(folder, capsys, text):
    Path("out.json").write_text(text)
    assert main("coverage ws.json --toys 5 -o out.json".split()) == 1
    assert capsys.readouterr().err == "hepinf: out.json is no file of hepinf coverage; name another with -o\n"
    assert Path("out.json").read_text() == text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("w.json", "w.json: No such file or directory"),
        ("ws.json --poi mus", "unknown parameter 'mus'; did you mean 'mu'?"),
        ("ws.json --truth jec=1", "unknown parameter 'jec'; did you mean 'jes'?"),
        ("ws.json --truth mu", "'mu' is not of the form NAME=VALUE"),
        ("ws.json --toys 0", "toys: at least one is needed, not 0"),
        ("ws.json --nuisances priors", "nuisances: unknown ensemble 'priors'; did you mean 'prior'?"),
        (
            "ws.json --templates redrawn",
            "templates: a workspace does not say how its variations were simulated; say how: 'prop",
        ),
        ("ws.json --levels 68.3", "levels: between 0 and 1, not 68.3"),
        ("ws.json --measurement x", "unknown measurement 'x'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(folder, capsys, line, said):
    assert main(["coverage", *line.split(), "-o", "out.json"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"hepinf: {said}") and error.count("\n") == 1
    assert not Path("out.json").exists()


def test_a_file_that_cannot_be_written_is_one_line(folder, capsys):
    assert main("coverage ws.json --toys 5 -o ws.json/out.json".split()) == 1
    assert capsys.readouterr().err.startswith("hepinf: cannot write to ws.json/out.json: ")


def test_an_interruption_says_where_the_toys_are(folder, capsys, monkeypatch):
    def interrupted(self, number, rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(library.Study, "chunk", interrupted)
    assert main("coverage ws.json -o out.json".split()) == 130
    assert "what had finished is in the executed notebook, or in the file of -o" in capsys.readouterr().err
