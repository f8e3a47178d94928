"""What may happen to a long computation: killed at any moment, a full disk, a folder that cannot be written, odd input.

`nbs/benchmarks/reliability.ipynb` is the report; `tests/runs/fuzz.py` makes the odd input.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from hepinf.core.artefacts import _CARD, _WEIGHTS, _digest, read_artefact, write_artefact
from hepinf.flows.flow import Flow, maf
from hepinf.runs.record import read_result

ROOT = Path(__file__).resolve().parents[2]
# As often as the report says, or half as often.
KILLS = {"training": 8, "run": 6, "sweep": 6}
if os.environ.get("HEPINF_BENCHMARK") != "full":
    KILLS = {name: times // 2 for name, times in KILLS.items()}
HEPINF = [sys.executable, "-c", "from hepinf.runs.cli import main; raise SystemExit(main())"]

TRAINING = """
import sys
import torch
from hepinf.train.config import TrainConfig
from hepinf.unbinned.conditional import train_conditional
from hepinf.unbinned.coordinates import Coordinates

torch.set_num_threads(1)
x = 1 + 8 * torch.rand(4000, 1, generator=torch.Generator().manual_seed(1))
density = train_conditional(
    x, None, Coordinates({"x": "x"}, {"x": (0.0, 10.0)}), flow={"hidden": (8,), "bins": 4},
    training=TrainConfig(
        epochs=15, batch_size=100, progress=False, checkpoint=sys.argv[1] + "/state", checkpoint_every=0.0,
    ),
)
density.save(sys.argv[1] + "/density")
"""


def alone() -> dict[str, str]:
    """The environment of a command that has one core."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def killed(command: list[str], cwd: Path, after: float) -> bool:
    """Start a command, kill -9 it after so many seconds; whether it was still alive then."""
    process = subprocess.Popen(command, cwd=cwd, env=alone(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True


def finished(command: list[str], cwd: Path) -> float:
    """Run a command to its end; the seconds it took."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=alone(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - begun


def test_a_training_killed_at_random_moments_ends_as_if_nothing_had_happened(tmp_path):
    """Every kill leaves the old or the new checkpoint, and a whole artefact or none."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    seconds = finished([sys.executable, "-c", TRAINING, str(whole)], tmp_path)
    chance, alive = random.Random(5), 0
    for _ in range(KILLS["training"]):
        alive += killed([sys.executable, "-c", TRAINING, str(cut)], tmp_path, seconds * chance.uniform(0.3, 0.8))
        if (cut / "density").exists():
            read_artefact(cut / "density", "conditional")
    assert alive > 0
    finished([sys.executable, "-c", TRAINING, str(cut)], tmp_path)
    ours, wanted = (read_artefact(folder / "density", "conditional")[0] for folder in (cut, whole))
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)


def test_a_run_killed_at_random_moments_leaves_a_whole_record_or_none(tiny, tmp_path):
    command = [*HEPINF, "run", "tiny", "--scale", "smoke", "-o"]
    seconds = finished([*command, "whole"], tmp_path)
    chance, alive = random.Random(6), 0
    for _ in range(KILLS["run"]):
        alive += killed([*command, "cut"], tmp_path, seconds * chance.uniform(0.2, 1.0))
        record = tmp_path / "cut" / "result.json"
        if record.exists():
            read_result(record)
    assert alive > 0
    finished([*command, "cut"], tmp_path)
    ours, wanted = (read_result(tmp_path / name / "result.json") for name in ("cut", "whole"))
    assert ours["results"] == wanted["results"] and ours["parameters"] == wanted["parameters"]


def test_a_sweep_killed_at_random_moments_is_finished_by_the_next_one(tiny, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text("notebook: tiny\nscale: smoke\ngrid: {rate: [0.5, 0.25]}\nseeds: 2\n")
    command = [*HEPINF, "sweep", str(spec), "--cores", "2", "-o"]
    seconds = finished([*command, "whole"], tmp_path)
    chance, alive = random.Random(7), 0
    for _ in range(KILLS["sweep"]):
        alive += killed([*command, "cut"], tmp_path, seconds * chance.uniform(0.2, 0.9))
        for record in (tmp_path / "cut").rglob("result.json"):
            read_result(record)
    assert alive > 0
    finished([*command, "cut"], tmp_path)
    ours, wanted = (sorted((tmp_path / name).rglob("result.json")) for name in ("cut", "whole"))
    assert len(wanted) == 4 and [p.parent.name for p in ours] == [p.parent.name for p in wanted]
    for a, b in zip(ours, wanted):
        assert read_result(a)["results"] == read_result(b)["results"]


SMALL_DISK = """
import signal
import sys
import torch
from hepinf.core.artefacts import write_artefact
from hepinf.core.checkpoint import write_checkpoint
from hepinf.core.io import write_json

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit is an error, as on a full disk
writers = {
    "result": lambda n: write_json(__import__("pathlib").Path("result.json"), {"x": "a" * n}),
    "artefact": lambda n: write_artefact("artefact", "flow", {"w": torch.zeros(n)}, {}),
    "checkpoint": lambda n: write_checkpoint("state", {"w": torch.zeros(n)}, {}, {}),
}
for name, write in writers.items():
    write(100)
    try:
        write(100_000)
    except Exception as error:
        print(name, type(error).__name__, error)
    else:
        print(name, "did not notice")
"""


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """No file may grow beyond 50 kB here: a write stops in the middle, as on a full disk."""
    limit = (50_000, 50_000)
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK], cwd=tmp_path, capture_output=True, text=True, env=alone(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert all("File too large" in text for text in said.values()) and len(said) == 3, said
    assert json.loads((tmp_path / "result.json").read_text()) == {"x": "a" * 100}
    assert read_artefact(tmp_path / "artefact", "flow")[0]["w"].shape == (100,)
    assert torch.equal(load_file(tmp_path / "state")["w"], torch.zeros(100))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artefact", "result.json", "state"], (
        "nothing half-written"
    )


def test_a_run_on_a_full_disk_says_so(tiny, tmp_path):
    """No file may grow beyond 6 kB: the notebook with its figure does not fit."""
    done = subprocess.run(
        [*HEPINF, "run", "tiny", "--scale", "smoke", "-o", "full"], cwd=tmp_path, capture_output=True, text=True,
        env=alone(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000)),
    )  # fmt: skip
    assert done.returncode == 1 and "File too large" in done.stderr, done.stderr
    assert not (tmp_path / "full" / "result.json").exists()
    for notebook in (tmp_path / "full").glob("*.ipynb"):
        json.loads(notebook.read_text())


READ_ONLY = """
import os
import sys
from pathlib import Path
import torch
from hepinf.core.artefacts import write_artefact
from hepinf.core.checkpoint import write_checkpoint
from hepinf.core.errors import RunError
from hepinf.core.io import write_text
from hepinf.runs.notebook import prepare_folder

if os.getuid() == 0:
    os.setuid(65534)  # for root no folder is read-only
for write in (
    lambda: prepare_folder(Path("run")),
    lambda: write_text(Path("result.json"), "a"),
    lambda: write_artefact("artefact", "flow", {"w": torch.zeros(1)}, {}),
    lambda: write_checkpoint("state", {"w": torch.zeros(1)}, {}, {}),
):
    try:
        write()
        print("did not notice")
    except (RunError, OSError) as error:
        print(error)
"""


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:  # pytest's own folders are private
        parent.chmod(0o755)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    done = subprocess.run([sys.executable, "-c", READ_ONLY], cwd=locked, capture_output=True, text=True, env=alone())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and all("ermission denied" in line for line in lines), lines
    assert lines[0] == "cannot write to run: Permission denied"
    assert not any(locked.iterdir())


def test_two_thousand_odd_inputs_meet_only_documented_errors(tmp_path):
    command = [sys.executable, ROOT / "tests" / "runs" / "fuzz.py", tmp_path, "2000", "1"]
    counts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=alone()).stdout)
    surprises = {name: found["surprises"] for name, found in counts.items() if found["surprises"]}
    assert not surprises
    assert sum(found["accepted"] + found["refused"] for found in counts.values()) == 2000
    assert all(found["refused"] > 0 for found in counts.values())


def sealed(folder: Path, data: bytes, change: dict) -> None:
    """Weights and a changed card, with checksums that are right."""
    import hashlib

    (folder / _WEIGHTS).write_bytes(data)
    card = json.loads((folder / _CARD).read_text()) | {"weights": hashlib.sha256(data).hexdigest()} | change
    card["sha256"] = _digest(card)
    (folder / _CARD).write_text(json.dumps(card))


class Harm:
    "An object whose unpickling would leave a trace."

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


def test_foreign_artefacts_are_refused(tmp_path):
    """A pickle with right checksums is refused and not opened; so are paths as names and exchanged weights."""
    flow = maf(2, transforms=1, hidden=(4,))
    good = (flow.save(tmp_path / "good") / _WEIGHTS).read_bytes()
    trace = tmp_path / "trace"
    torch.save({"w": Harm(trace)}, tmp_path / "pickle")
    cases = {
        "pickle": ((tmp_path / "pickle").read_bytes(), {}),
        "kind": (good, {"kind": "../../flow"}),
        "family": (good, {"config": {"family": "../../etc/passwd"}}),
        "dtype": (good, {"dtype": "load"}),
        "tensors": (save({"../../x": torch.zeros(2)}), {}),
    }
    for name, (data, change) in cases.items():
        folder = flow.save(tmp_path / f"bad-{name}")
        sealed(folder, data, change)
        with pytest.raises(ValueError, match="."):
            Flow.load(folder)
    assert not trace.exists(), "the pickle was opened"
    folder = flow.save(tmp_path / "exchanged")
    (folder / _WEIGHTS).write_bytes(
        save({name: x + 1 for name, x in flow.state_dict().items() if x.is_floating_point()})
    )
    with pytest.raises(ValueError, match="does not match the checksum"):
        Flow.load(folder)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match="exists and holds something else"):
        (tmp_path / "elsewhere" / "thesis.txt").write_text("three years")
        write_artefact(tmp_path / "elsewhere", "flow", {}, {})
    assert (tmp_path / "elsewhere" / "thesis.txt").read_text() == "three years"


OFFLINE = """
import importlib, pkgutil, socket

def refuse(*arguments, **options):
    raise AssertionError(f"the network was asked for {arguments}")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
import hepinf
for module in pkgutil.walk_packages(hepinf.__path__, "hepinf."):
    if not module.ispkg and module.name != "hepinf._modidx":
        importlib.import_module(module.name)
import torch
from hepinf.runs.cli import main
from hepinf.infer.mle import fit
from hepinf.binned.model import BinnedModel
from hepinf.problems import datasets
from hepinf.problems.dijet.events import dijet_samples
from hepinf.workspaces.schema import example_workspace

main(["list"])
model = BinnedModel.from_workspace(example_workspace())
fit(model)
dijet_samples()
name = next(iter(datasets.DATASETS))
try:
    datasets.find_dataset(name)
except AssertionError as error:
    print("asked:", error)
except Exception as error:
    print("asked:", type(error).__name__, error)
"""


def test_the_network_is_asked_only_by_datasets(tmp_path):
    clean = {name: value for name, value in alone().items() if name != "HEPINF_DATA"}
    clean |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OFFLINE], cwd=tmp_path, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
    assert "inferno: " in done.stdout
    assert "asked:" in done.stdout and "network was asked" in done.stdout + done.stderr
