"""The command `hepinf workspace`: the words of the library, one line for what was done, one for what cannot be."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hepinf.binned.asimov_data import with_asimov
from hepinf.runs.cli import main
from hepinf.workspaces.blinding import mask
from hepinf.workspaces.combination import combine
from hepinf.workspaces.correlation import correlate, decorrelate
from hepinf.workspaces.rebinning import rebin
from hepinf.workspaces.schema import example_workspace
from hepinf.workspaces.surgery import prune, rename, select, with_data

NEW = {"channels": {"signal_region": "SR"}, "modifiers": {"mu": "mu_H"}}
OTHER = {"channels": {"signal_region": "A", "control_region": "B"}, "modifiers": {"mc": "mc_A"}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "The current folder, with the small workspace and a partner for it."
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ws.json").write_text(json.dumps(example_workspace()))
    (tmp_path / "other.json").write_text(json.dumps(rename(example_workspace(), **OTHER)))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("select ws.json --channels control_region", lambda w: select(w, channels="control_region")),
        ("prune ws.json --modifier-types staterror", lambda w: prune(w, modifier_types="staterror")),
        ("mask ws.json --channels signal_*", lambda w: mask(w, "signal_region")),
        ("rename ws.json --channels signal_region=SR --modifiers mu=mu_H", lambda w: rename(w, **NEW)),
        ("decorrelate ws.json --name jes --by sample", lambda w: decorrelate(w, "jes", "sample")),
        (
            "decorrelate ws.json --name jes --by signal_region=x",
            lambda w: decorrelate(w, "jes", {"signal_region": "x"}),
        ),
        ("combine ws.json other.json", lambda w: combine(w, rename(w, **OTHER))),
        ("combine ws.json other.json --measurement both", lambda w: combine(w, rename(w, **OTHER), measurement="both")),
        ("rebin ws.json --channels signal_region --edges 0 2", lambda w: rebin(w, "signal_region", [0, 2])),
        ("rebin ws.json --channels signal_region --edges 2", lambda w: rebin(w, "signal_region", 2)),
        ("data ws.json --counts signal_region=60,21.5", lambda w: with_data(w, {"signal_region": [60, 21.5]})),
        ("asimov ws.json --parameters mu=0 jes=0.5", lambda w: with_asimov(w, {"mu": 0, "jes": 0.5})),
        ("asimov ws.json --channels signal_region", lambda w: with_asimov(w, channels="signal_region")),
    ],
)
def test_a_verb_is_the_function_of_its_name(folder, capsys, line, same):
    assert main(["workspace", *line.split(), "-o", "new/out.json"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1 and captured.out.endswith("; written to new/out.json\n")
    assert captured.err == ""
    text = Path("new/out.json").read_text()
    assert json.loads(text) == same(example_workspace())
    assert main(["workspace", *line.split()]) == 0
    captured = capsys.readouterr()
    assert captured.out == text and captured.err.count("\n") == 1


def test_verbs_are_piped(folder, capsys, monkeypatch):
    assert main("workspace decorrelate ws.json --name jes".split()) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(capsys.readouterr().out))
    assert main("workspace correlate - -o back.json --names jes_* --into jes".split()) == 0
    assert json.loads(Path("back.json").read_text()) == correlate(
        decorrelate(example_workspace(), "jes"), "jes_*", into="jes"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("select ws.json --channels signal", "unknown channel 'signal'; did you mean 'signal_region'?"),
        ("select ws.json", "select: name something, by --channels or --samples or --modifiers or --modifier-types"),
        ("mask w.json --channels a", "w.json: No such file or directory"),
        ("mask text.json --channels a", "text.json: not a JSON file"),
        ("mask hs3.json --channels a", "hs3.json: this is an HS3 document"),
        ("rename ws.json --channels signal_region", "'signal_region' is not of the form NAME=VALUE"),
        ("rename ws.json --modifiers mu=jes", "modifier 'mu': the name 'jes' is taken"),
        ("rebin ws.json --channels signal_region --edges 0 1.5", "edges are numbers of bins, not '1.5'"),
        ("data ws.json --counts signal_region=1,x", "a number is needed, not 'x'"),
        ("asimov ws.json --parameters jec=1", "unknown parameter 'jec'; did you mean 'jes'?"),
        ("combine ws.json", "combine: two workspaces are needed, not 1"),
        (
            "combine ws.json other.json --join inner",
            "unknown join 'inner'; choose from: outer, left outer, right outer",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(folder, capsys, line, said):
    Path("text.json").write_text("no json")
    Path("hs3.json").write_text('{"distributions": []}')
    assert main(["workspace", *line.split(), "-o", "out.json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"hepinf: {said}") and captured.err.count("\n") == 1
    assert not Path("out.json").exists()


def test_a_file_that_cannot_be_written_is_one_line(folder, capsys):
    assert main("workspace mask ws.json -o ws.json/out.json --channels signal_region".split()) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("hepinf: cannot write to ws.json/out.json: ") and captured.err.count("\n") == 1


def test_most_verbs_need_no_tensors(folder):
    code = (
        "import sys; from hepinf.runs.cli import main;"
        "main('workspace select ws.json -o out.json --channels control_region'.split());"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = "select --channels control_region: 1 channel, 1 bin, 1 parameter; before 2 channels, 3 bins, 4 parameters"
    assert done.stdout == f"{line}; written to out.json\n"
