"""Trainings that are compiled, and stacked ones that are killed and resumed."""

import signal
import subprocess
import sys
import time

import pytest
import torch

SCRIPT = """
import sys, torch
from hepinf.train.config import TrainConfig
from hepinf.train.loop import train
from hepinf.train.networks import MLP
from hepinf.train.schedules import Plateau
torch.set_num_threads(1)
x = torch.randn(1200, 4, generator=torch.Generator().manual_seed(1))
def loss(network, batch, fraction):
    return ((network(batch["x"]) - batch["x"][:, :1]) ** 2).mean()
def validate(network):
    return loss(network, {"x": x[:500]}, 1.0)
members = [MLP((4, 24, 24, 1), seed=seed) for seed in (0, 1)]
config = TrainConfig(batch_size=60, epochs=15, lr=5e-3, schedule=Plateau(0.5, 1), ema=0.95, clip=1.0, patience=9,
    vectorise=True, progress=False, checkpoint=sys.argv[1] if len(sys.argv) > 1 else None, checkpoint_every=0)
history = train(loss, members, {"x": x}, config, validate=validate)
"""


def ended(*arguments):
    "The variables of the script after it has run here."
    space, old, sys.argv = {"__name__": "script"}, sys.argv, ["script", *arguments]
    try:
        exec(SCRIPT, space)
    finally:
        sys.argv = old
    return space


def test_a_stack_that_is_killed_twice_ends_as_if_nothing_had_happened(tmp_path):
    path = tmp_path / "state.safetensors"
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)])
        first, seen = path.stat().st_mtime_ns if path.exists() else 0, set()
        while len(seen) < 3 and process.poll() is None:
            seen |= {path.stat().st_mtime_ns} - {first} if path.exists() else set()
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    resumed, calm = ended(str(path)), ended()
    assert repr(vars(resumed["history"])) == repr(vars(calm["history"]))
    for one, other in zip(resumed["members"], calm["members"]):
        assert all(torch.equal(u, v) for u, v in zip(one.parameters(), other.parameters()))


COMPILED = """
import sys, torch
from hepinf.train.config import TrainConfig
from hepinf.train.loop import train
from hepinf.train.networks import MLP
from hepinf.train.schedules import Plateau
vectorise = sys.argv[1] == "stacked"
x = torch.randn(512, 3, generator=torch.Generator().manual_seed(0))
def loss(network, batch, fraction):
    return ((network(batch["x"]) - batch["x"][:, :1]) ** 2).mean() * (1 + 0.1 * fraction)
records = []
for compiled in (False, True):
    members = [MLP((3, 8, 1), seed=seed) for seed in range(1 + vectorise)]
    config = TrainConfig(batch_size=64, epochs=3, lr=1e-3, compile=compiled, vectorise=vectorise, progress=False)
    records.append(train(loss, members, {"x": x}, config).loss)
torch.testing.assert_close(*map(torch.tensor, records), rtol=1e-5, atol=0)
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
"""


@pytest.mark.parametrize("way", ["alone", "stacked"])
def test_compiled_steps_are_the_same_steps(way):
    "One graph for all steps, although the fraction enters the loss; run apart, since checks of types break graphs."
    subprocess.run([sys.executable, "-c", COMPILED, way], check=True)
