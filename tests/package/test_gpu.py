"""The check of a device: on the CPU a small part of it, as a test of itself; on a GPU, if there is one, all of it."""

import json

import pytest
import torch

from hepinf.core.errors import UsageError
from hepinf.runs.cli import main
from hepinf.runs.device_check import check_device


def test_the_check_agrees_with_itself_and_writes_one_file(tiny, tmp_path, capsys):
    "The CPU beside the CPU, with a paper that takes seconds: every number is the same."
    path = tmp_path / "check.json"
    assert main(["check-device", "--device", "cpu", "--paper", "tiny", "--toys", "2", "-o", str(path)]) == 0
    content = json.loads(path.read_text())
    assert content["ok"] and content["problems"] == [] and content["device"] == "cpu"
    assert any(entry["name"].startswith("tiny: ") for entry in content["agreements"])
    assert all(entry["cpu"] == entry["device"] for entry in content["agreements"])
    assert all(entry["cpu"] > 0 and entry["ratio"] > 0 for entry in content["seconds"].values())
    assert [file.name for file in tmp_path.iterdir() if "check" in file.name] == ["check.json"]
    assert "largest log L" in capsys.readouterr().out


def test_a_paper_that_does_not_finish_is_a_problem(tiny):
    check = check_device("cpu", ["tiny"], minutes=0.0, toys=2)
    assert not check.ok and check.problems == ("tiny on cpu: the time is used up",)


def test_an_absent_device_or_paper_is_named_before_anything_runs():
    with pytest.raises(UsageError, match="inferno"):
        check_device("cpu", ["infernal"])
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no GPU"):
            check_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
def test_a_gpu_gives_the_numbers_of_the_cpu(tmp_path):
    check = check_device("cuda")
    check.write(tmp_path / "check.json")
    assert check.ok, check.problems
