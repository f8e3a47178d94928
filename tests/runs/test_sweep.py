"""Sweeps and reports: what is refused, what is resumed, what is run again, and what is said about it all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from frozen import differences, read, sweep_numbers

from hepinf.core.errors import RunError
from hepinf.runs import worker
from hepinf.runs.cli import main
from hepinf.runs.papers import papers, papers_folder
from hepinf.runs.record import read_result
from hepinf.runs.sweep import find_sweep, grid_points, read_sweep

# A run of the paper below takes no longer than the start of its kernel: it imports neither torch nor hepinf.
LIGHT = """\
import json
import os
import time

if os.path.exists("slow"):
    time.sleep(pause)
if fail and seed == 2:
    raise ValueError("3 bins are empty")
entry = dict(name="table1/sigma", value=rate + seed / 10, low=None, high=None, published=1.0, published_low=None)
entry |= dict(published_high=None, limit=0.5, unit="events", source="Table 1")
parameters = dict(scale=scale, seed=seed, rate=rate, label=label, pause=pause, fail=fail, device=device)
environment = dict(hepinf="0", torch="0", python="3", device=device, commit=None)
record = dict(schema=1, paper="light", scale=scale, parameters=parameters, seed=seed, seconds=0.1)
record |= dict(environment=environment, results=[entry], figures=[])
with open(output + "/result.json", "w") as file:
    json.dump(record, file)
with open(os.environ["RUNS"], "a") as file:
    print(rate, seed, os.environ["OMP_NUM_THREADS"], device, os.getcwd(), file=file)
"""
PARAMETERS = """\
scale = "smoke"  # smoke or laptop
seed = 1  # of nothing
device = "auto"  # auto, cpu or cuda
output = ""  # folder
rate = 0.5  # a number
label = "a"  # a word
pause = 0.0  # seconds, if there is a file `slow`
fail = False  # at seed 2
"""


COMMAND = [sys.executable, "-c", "from hepinf.runs.cli import main; raise SystemExit(main())"]


@pytest.fixture
def light(tmp_path, monkeypatch):
    """A paper whose run takes no time, as the only paper, and an empty current folder."""
    import nbformat

    for name in ("papers", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HEPINF_PAPERS", str(tmp_path / "papers"))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs.txt"))
    monkeypatch.chdir(tmp_path / "here")
    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell("# A light paper", id="title"),
        v4.new_code_cell(PARAMETERS.strip(), id="parameters", metadata={"tags": ["parameters"]}),
        v4.new_code_cell(LIGHT.strip(), id="work"),
    ]
    path = tmp_path / "papers" / "light.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    path.with_suffix(".smoke.yaml").write_text("# cost: nothing\nscale: smoke\n")
    path.with_suffix(".laptop.yaml").write_text("# cost: nothing\nscale: laptop\nrate: 2\n")
    return path


def spec(name: str = "s.yaml", **changes) -> str:
    """Write a sweep and return its name."""
    Path(name).write_text(yaml.safe_dump({"notebook": "light", "scale": "smoke", **changes}))
    return name


def hepinf(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command in a process of its own, as a user does: Snakemake keeps the streams it was imported with."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)


def runs(tmp_path: Path) -> list[list[str]]:
    """What every run that came to its end wrote down, since the last look."""
    log = tmp_path / "runs.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return sorted(line.split() for line in lines)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grdi": {}}, "unknown key 'grdi'; did you mean 'grid'?"),
        ({"notebook": "ligth"}, "unknown paper 'ligth'; did you mean 'light'?"),
        ({"notebook": 3}, "'notebook' is a name, not 3"),
        ({"scale": "smoek"}, "unknown scale 'smoek'; did you mean 'smoke'?"),
        ({"fixed": {"rat": 1}}, "unknown parameter of light 'rat'; did you mean 'rate'?"),
        ({"fixed": {"output": "x"}}, "parameter 'output' is set by the option --output"),
        ({"grid": {"rate": []}}, "grid 'rate' is a list of at least one value, not []"),
        ({"grid": {"rate": 1}}, "grid 'rate' is a list of at least one value, not 1"),
        ({"grid": {"rate": [1, 1.0]}}, "'rate' has the value 1.0 twice; every point is run once"),
        ({"grid": {"rate": [1, "x"]}}, "parameter 'rate' takes a value of type float, like 0.5, not 'x'"),
        ({"grid": ["rate"]}, "'grid' is a mapping of names to values, not ['rate']"),
        ({"grid": {True: [1]}}, "True is no name of a parameter; YAML reads some words as values: put it in quotes"),
        ({"fixed": {"rate": 1}, "grid": {"rate": [1]}}, "'rate' is in fixed and in grid; keep one"),
        ({"seeds": 2, "grid": {"seed": [1]}}, "'seed' is in grid, and there is 'seeds'; keep one"),
        ({"seeds": 0}, "'seeds' is a number of seeds from 1 to 100000, or a list of them, not 0"),
        ({"seeds": 99999, "grid": {"rate": [1, 2]}}, "this is a sweep of 199998 points; up to 100000 are run as one"),
        ({"seeds": True}, "'seeds' is a number or a list of numbers, not True"),
        ({"seeds": []}, "'seeds' is a list of at least one value, not []"),
        ({"seeds": [1, 2.5]}, "parameter 'seed' takes a value of type int, like 1, not 2.5"),
    ],
)
def test_a_wrong_sweep_is_answered_in_one_line_and_leaves_nothing(light, capsys, changes, said):
    assert main(["sweep", spec(**changes)]) == 2
    assert capsys.readouterr().err == f"hepinf: s.yaml: {said}\n"
    assert [path.name for path in Path().iterdir()] == ["s.yaml"]


def test_a_key_that_stands_twice_is_refused(light, capsys):
    path = Path(spec())
    path.write_text(path.read_text() + "\nscale: smoke\n")
    assert main(["sweep", str(path)]) == 2
    assert capsys.readouterr().err == "hepinf: s.yaml: 'scale' stands there twice\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nothing.yaml", "there is no file nothing.yaml"),
        ("broken.yaml", "broken.yaml is not YAML"),
        ("list.yaml", "list.yaml: a sweep is a mapping with the keys notebook, scale, fixed, grid, seeds"),
        ("s.yaml --cores 0", "--cores takes a number from 1 on, not 0"),
        ("s.yaml --gpus -1", "--gpus takes a number from 0 on, not -1"),
        ("s.yaml --profile slrum", "unknown profile 'slrum'; did you mean 'slurm'?"),
    ],
)
def test_a_wrong_command_is_answered_in_one_line_and_leaves_nothing(light, capsys, arguments, said):
    Path("broken.yaml").write_text("a: [")
    Path("list.yaml").write_text("- a")
    spec()
    assert main(["sweep", *arguments.split()]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith(f"hepinf: {said}") and captured.count("\n") == 1
    assert not Path("runs").exists()


def test_without_the_extra_it_says_what_to_install(light, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "snakemake", None)
    assert main(["sweep", spec()]) == 1
    assert 'pip install "hepinf[sweep]"' in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_sweeps_of_the_papers_are_found_by_name_and_right(monkeypatch):
    monkeypatch.delenv("HEPINF_PAPERS", raising=False)
    shipped = {path.name.removesuffix(".sweep.yaml") for path in papers_folder().glob("*.sweep.yaml")}
    assert shipped == {*papers(), "smoke"}
    for name in sorted(shipped):
        sweep = read_sweep(find_sweep(name))
        assert name in (sweep.paper, "smoke") and len(grid_points(sweep)) > 1
    assert len(grid_points(read_sweep(find_sweep("smoke")))) == 12


def test_a_sweep_runs_once_and_then_only_what_changed(light, tmp_path, monkeypatch):
    """One story, because every step costs seconds: run, again, another value, another text, another code."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    name = spec(grid={"rate": ["1e-3", 1]}, seeds=2)
    done = hepinf("sweep", name, "--cores", "4")
    assert done.returncode == 0 and "all points are done" in done.stdout and "Traceback" not in done.stderr
    here = str(Path.cwd())
    assert runs(tmp_path) == [[r, s, "1", "cpu", here] for r in ("0.001", "1.0") for s in "12"]
    folder = Path("runs/s.sweep")
    log = (folder / "sweep.log").read_text()
    assert "4 points, 4 to run" in log and "4 of 4, rate-" in log and " left" in log
    for done_point in ("rate-0.001_seed-1", "rate-1.0_seed-2"):
        place = folder / "points" / done_point
        assert read_result(place / "result.json")["paper"] == "light" and (place / "notebook.ipynb").exists()

    assert hepinf("sweep", name).returncode == 0, "a second time there is nothing to do"
    assert hepinf("sweep", name, "-o", "dry", "--", "-n").returncode == 0, "a dry run does nothing"
    assert runs(tmp_path) == [] and not list(Path("dry").rglob("result.json"))

    text = light.read_text()
    light.write_text(text.replace("A light paper", "A very light paper").replace("# a number", "# a real number"))
    light.with_suffix(".laptop.yaml").write_text("# cost: nothing\nscale: laptop\nrate: 3\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert hepinf("sweep", spec(grid={"rate": [0.001, 2.0, 1.0]}, seeds=[1]), "--cores", "2").returncode == 0
    assert [run[:3] for run in runs(tmp_path)] == [["2.0", "1", "2"]], "prose and other scales cost nothing"

    light.with_suffix(".smoke.yaml").write_text("# cost: nothing\nscale: smoke\nlabel: b\n")
    assert hepinf("sweep", spec(grid={"rate": [2.0, 3.0]}, seeds=[1]), "--cores", "4").returncode == 0
    assert [run[:2] for run in runs(tmp_path)] == [["2.0", "1"], ["3.0", "1"]], "the scale file changed"

    light.write_text(text.replace("seed / 10", "seed / 20"))
    assert hepinf("sweep", spec(grid={"rate": [2.0]}, seeds=[1])).returncode == 0
    assert [run[:2] for run in runs(tmp_path)] == [["2.0", "1"]], "the code changed"
    assert read_result(folder / "points/rate-2.0_seed-1/result.json")["results"][0]["value"] == 2.05

    # The folders of points that are in the plan no more are named, and are in no table.
    said = hepinf("report", str(folder)).stdout
    assert (
        "2.050" in said
        and "rate-3.0_seed-1 is not in the plan of its sweep" in said
        and said.count("| table1/sigma") == 1
    )


def test_a_failing_run_is_named_and_costs_no_other(light, tmp_path):
    failed = hepinf("sweep", spec(fixed={"fail": True}, seeds=3), "--cores", "3", "-o", "out")
    assert failed.returncode == 1 and [run[1] for run in runs(tmp_path)] == ["1", "3"]
    message = failed.stderr[failed.stderr.index("hepinf: ") :]
    assert message.startswith("hepinf: 1 of 3 points have no result") and "Traceback" not in failed.stderr
    place = Path("out/points/seed-2").resolve()
    assert "seed-2: ValueError: 3 bins are empty" in message and str(place / "notebook.ipynb") in message
    assert "3 bins are empty" in (place / "notebook.ipynb").read_text() and not (place / "result.json").exists()
    assert "seed-2, FAILED: ValueError: 3 bins are empty" in Path("out/sweep.log").read_text()

    said = hepinf("report", "out").stdout
    assert "1 points have no result" in said and "out/points/seed-2: ValueError: 3 bins are empty" in said
    light.write_text(light.read_text().replace("if fail and", "if False and"))
    assert hepinf("sweep", "s.yaml", "--cores", "3", "-o", "out").returncode == 0
    assert len(runs(tmp_path)) == 3 and not (place / "error.txt").exists()


def test_a_kernel_that_found_its_port_taken_is_started_again(light, monkeypatch):
    """Two kernels that start together may choose the same port; an error of the notebook itself is no such thing."""
    tried = []

    def execute(paper, *arguments, **options):
        tried.append(paper)
        raise RunError("RuntimeError: Kernel died before replying to kernel_info" if paper == "light" else "3 bins")

    monkeypatch.setattr(worker, "execute", execute)
    folder = Path("point")
    folder.mkdir()
    content = worker.point_content("light", "smoke", {})
    for paper, times in (("light", 3), ("twin", 1)):
        (light.parent / "twin.ipynb").write_text(light.read_text())
        (folder / "point.json").write_text(json.dumps(content | {"paper": paper}))
        tried.clear()
        with pytest.raises(RunError):
            worker.run_point(folder)
        assert tried == [paper] * times


def alive(mark: str) -> list[str]:
    """Command lines of the processes that mention `mark`."""
    table = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in table.splitlines() if mark in line]


def wait(condition, seconds: float = 60) -> None:
    """Until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_a_killed_sweep_resumes_and_two_never_share_a_folder(light, tmp_path):
    """Killed hard in the middle: finished runs stay, half-done ones are repeated, and no process is left behind."""
    spec(grid={"pause": [0.0, 60.0]}, seeds=[1, 2])
    Path("slow").touch()
    Path("out").mkdir()
    log = Path("out/sweep.log")
    log.touch()
    sweep = subprocess.Popen([*COMMAND, "sweep", "s.yaml", "-o", "out", "--cores", "4"], stderr=subprocess.DEVNULL)
    try:
        done = [Path(f"out/points/pause-0.0_seed-{seed}/result.json") for seed in (1, 2)]
        half = [Path(f"out/points/pause-60.0_seed-{seed}") for seed in (1, 2)]
        wait(lambda: "2 of 4" in log.read_text())
        wait(lambda: all((place / "notebook.ipynb").exists() for place in half))
        second = hepinf("sweep", "s.yaml", "-o", "out")
        assert second.returncode == 1 and "hepinf: a sweep is running in" in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        os.kill(sweep.pid, signal.SIGKILL)
        sweep.wait()
    wait(lambda: not alive(str(Path("out").resolve())), 10)
    assert not any((place / "result.json").exists() for place in half)
    before = [path.stat().st_mtime_ns for path in done]
    assert len(runs(tmp_path)) == 2

    Path("slow").unlink()
    rerun = hepinf("sweep", "s.yaml", "-o", "out", "--cores", "2")
    assert rerun.returncode == 0, rerun.stderr
    assert "4 points, 2 to run" in rerun.stderr
    assert [path.stat().st_mtime_ns for path in done] == before, "finished runs are untouched"
    assert len(runs(tmp_path)) == 2 and all((place / "result.json").exists() for place in half)


def record(folder: str, value: float | None, seed: int = 1, **changes) -> None:
    """Write the result of a run with one number to `folder`."""
    entry = dict(name="table1/sigma", value=value, low=None, high=None, published=17.0, published_low=16.5)
    entry |= dict(published_high=17.5, limit=14.0, unit="events", source="Table 1", reason="" if value else "diverged")
    parameters = dict(seed=seed, rate=0.1, device="cpu") | changes
    content = dict(schema=1, paper="light", scale="smoke", parameters=parameters, seed=seed, seconds=1.0, figures=[])
    content |= dict(environment=dict(hepinf="1", torch="2", python="3", device="cpu", commit=None), results=[entry])
    Path(folder).mkdir(parents=True)
    (Path(folder) / "result.json").write_text(json.dumps(content))


def test_a_report_takes_medians_over_seeds_and_survives_bad_files(light, capsys):
    for seed, value in enumerate([15.0, 16.0, 17.0, 30.0, None], 1):
        record(f"a/one/{seed}", value, seed)
    record("a/two", 18.0, rate=0.2)
    record("b/copy-of-two", 18.0, rate=0.2)
    Path("a/foreign").mkdir()
    Path("a/foreign/result.json").write_text('{"loss": 3}')
    assert main(["report", "a", "b", "-o", "out"]) == 0
    said = capsys.readouterr().out
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("|")
    ]
    assert lines[0][:5] == ["rate", "name", "published", "median [16 %, 84 %]", "limit"]
    assert lines[2][3].startswith("16.50 [15.48, 23.76]") and lines[2][-2:] == ["5", "1 without a value: diverged"]
    assert lines[3][:4] == ["0.2000", "table1/sigma", "17.00 [16.50, 17.50]", "18.00"], "one run has no interval"
    assert "foreign/result.json is not a hepinf result" in said and "b/copy-of-two is the same run as a/two" in said
    assert Path("out/report.md").read_text() == said
    assert (
        Path("out/report.csv")
        .read_text()
        .splitlines()[1]
        .startswith("light,smoke,0.1,table1/sigma,17.0,16.5,17.5,16.5,")
    )
    assert Path("out/light.smoke.png").read_bytes().startswith(b"\x89PNG")


def test_two_campaigns_are_compared_number_by_number(light, capsys):
    for seed, shift in enumerate([-0.2, 0.0, 0.2], 1):
        record(f"a/{seed}", 16 + shift, seed)
        record(f"b/{seed}", 18 + shift, seed, rate=0.3)
    assert main(["report", "--compare", "a", "b", "-o", "out"]) == 0
    said = capsys.readouterr().out
    assert "A: rate 0.1000" in said and "B: rate 0.3000" in said and Path("out/report.md").read_text() == said
    # Three seeds each: t = 2 / (0.2 sqrt(2/3)) = 12.2 with four degrees of freedom is 3.7 sigma, not 12.
    assert "2.000 ± 0.1633" in said and "+3.7 σ" in said and "3 + 3" in said


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("", 2, "a report needs folders, or --compare and two of them"),
        ("nowhere", 2, "there is no folder nowhere"),
        ("--compare a nowhere", 2, "there is no folder nowhere"),
        ("--compare a empty", 2, "the two campaigns have no paper in common"),
        ("empty", 1, "no result.json was found"),
    ],
)
def test_a_report_of_nothing_says_so(light, capsys, arguments, status, said):
    record("a", 1.0)
    Path("empty").mkdir()
    assert main(["report", *arguments.split()]) == status
    assert capsys.readouterr().err == f"hepinf: {said}\n"


def same(name: str) -> tuple[float, float]:
    """How near a result of the short sweep is to the frozen one, relative and absolute."""
    if name.startswith("pyhf/"):
        return 0.0, 1e-6  # what two programs differ by is rounding and the minimisers' tolerance, no number to keep
    if name == "goodness/p_toys":
        return 0.0, 0.06  # one of twenty toys may change sides
    if name.startswith("hmc/"):
        return 1e-6, 0.0  # forty trajectories on end: rounding errors grow with each, to 1e-12 so far
    return 1e-5, 1e-7  # fits end sqrt(2e-8) standard deviations from the maximum, limits 1e-5 from the solution


def test_the_short_sweep_of_a_paper_runs_and_is_reported(tmp_path, monkeypatch):
    """Four corners of `hepinf sweep smoke`: the frozen numbers, and a higher limit at a higher confidence level."""
    monkeypatch.delenv("HEPINF_PAPERS", raising=False)
    monkeypatch.chdir(tmp_path)
    corners = yaml.safe_load(find_sweep("smoke").read_text()) | {"grid": {"level": [0.9, 0.99]}, "seeds": 2}
    done = hepinf("sweep", spec("corners.yaml", **corners), "--cores", "2", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "4 of 4, " in done.stderr
    limits = {}
    for path in Path("out/points").glob("*/result.json"):
        result = read_result(path)
        (limit,) = (entry["value"] for entry in result["results"] if entry["name"] == "limit/small")
        limits[result["parameters"]["level"], result["seed"]] = limit
    found, frozen = sweep_numbers(Path("out")), read("sweep_smoke.json")
    assert found.keys() == {f"level-{level}_seed-{seed}" for level in (0.9, 0.99) for seed in (1, 2)}
    assert not [line for name in found for line in differences(found[name], frozen[name], same)]
    for seed in (1, 2):
        assert limits[0.9, seed] < limits[0.99, seed]
    told = hepinf("report", "out", "-o", "tables")
    assert told.returncode == 0 and "| 0.9900 | limit/small " in told.stdout and "missing" not in told.stdout
    assert (Path("tables") / "report.csv").read_text().count("limit/small,") >= 2
