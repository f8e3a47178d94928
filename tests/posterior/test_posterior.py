"""Amortised posteriors: what the paper promises at smoke scale, survival of a kill, and published workspaces."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hepinf.binned.model import BinnedModel
from hepinf.diagnostics.calibration import calibration_curve, sbc_ranks
from hepinf.posterior.amortised import AmortisedPosterior
from hepinf.posterior.joint import Joint
from hepinf.posterior.network import PosteriorConfig
from hepinf.problems import vh
from hepinf.stats.priors import Gamma, LogNormal, TruncatedNormal, Uniform
from hepinf.train.config import TrainConfig

DATA = os.environ.get("HEPINF_DATA")
PUBLISHED = sorted(Path(DATA, "workspaces").glob("ttbar*.json")) if DATA else []


@pytest.fixture(scope="module")
def posterior():
    """Half a minute of training on one core."""
    return AmortisedPosterior.train(vh.vh_joint(), training=TrainConfig(steps=96, progress=False), seed=3)


def test_smoke_scale_of_the_paper(posterior):
    joint, generator = posterior.joint, torch.Generator().manual_seed(11)
    truth, counts = joint.sample(2000, generator)
    z_true = truth[:, joint.n_nuisances :]
    with torch.no_grad():
        assert -float(posterior.log_prob_whitened(z_true, counts).mean()) < 10.6
    z = torch.cat([posterior.sample_whitened(100, part, seed=generator) for part in counts.split(500)])
    assert calibration_curve(sbc_ranks(z_true, z, seed=generator), repeats=20).max_median < 0.04
    vbf, wh = posterior.names.index("VBF"), posterior.names.index("qqWH")
    assert z[..., vbf].mean().abs() < 0.1 and 0.9 < float(z[..., vbf].std()) < 1.1
    assert float(torch.corrcoef(torch.stack([z[..., wh].mean(1), z_true[:, wh]]))[0, 1]) > 0.97


def test_both_modes_of_simulated_samples_are_the_same_problem(posterior):
    """The posterior learnt with one factor per bin is as good for templates that fluctuate process by process."""
    scores = []
    for mc in ("gamma", "poisson"):
        truth, counts = vh.vh_joint(mc).sample(2000, seed=12)
        with torch.no_grad():
            scores.append(-posterior.log_prob_whitened(truth[:, posterior.joint.n_nuisances :], counts))
    difference = float(scores[0].mean() - scores[1].mean())
    error = math.hypot(*(float(score.std()) / 2000**0.5 for score in scores))
    assert abs(difference) < 5 * error


def test_an_unlikely_observation_is_told_and_garbage_refused(posterior):
    _, counts = posterior.joint.sample(2, seed=13)
    with pytest.warns(RuntimeWarning, match="unlike the simulations"):
        posterior.check_observation(counts[0].flip(0))
    for bad, word in ((counts[0] * math.nan, "bin 0"), (counts[0] + 0.5, "whole number"), (counts[0, :-1], "234 bins")):
        with pytest.raises(ValueError, match=word):
            posterior.sample(10, bad)


SCRIPT = """
import sys, torch
from hepinf.posterior.amortised import AmortisedPosterior
from hepinf.posterior.network import PRESETS
from hepinf.problems import vh
from hepinf.train.config import TrainConfig
path = sys.argv[1] if len(sys.argv) > 1 else None
config = PRESETS["ridge"].replace(pairs=1024, validation=256)
training = TrainConfig(steps=40, progress=False, checkpoint=path, checkpoint_every=0)
posterior = AmortisedPosterior.train(vh.vh_joint(), encoder=config, training=training, seed=5)
"""


def test_a_killed_training_goes_on_where_it_was(tmp_path):
    path = tmp_path / "state.safetensors"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)])
    while not path.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    spaces = []
    for arguments in ([str(path)], []):
        space, before = {"__name__": "again"}, sys.argv
        sys.argv = ["again", *arguments]
        try:
            exec(SCRIPT, space)
        finally:
            sys.argv = before
        spaces.append(space["posterior"])
    resumed, calm = spaces
    assert resumed.history.score == calm.history.score
    for one, two in zip(resumed.network.parameters(), calm.network.parameters()):
        assert torch.equal(one, two)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_workspace_takes_the_place_of_the_model(path, tmp_path):
    """The joint density is the workspace's likelihood with its constraints as priors, in other coordinates."""
    model = BinnedModel.from_workspace(path)
    free = [p.name for p in model.parameters if p.constraint is None and not p.fixed]
    priors = {name: TruncatedNormal(0.0, 2.0, 1.0, 0.5) for name in free}
    with pytest.raises(ValueError, match=free[0]):
        Joint(model)
    joint = Joint(model, priors, pois=free[:1])
    z, counts = joint.sample(20, seed=1)
    theta, slope = joint.theta(z)
    prior = sum(joint.priors[name].log_prob(theta[:, model.index(name)]) for name in free)
    in_model = model.log_prob(theta, model.observed) + prior + slope.log().sum(-1)
    gap = joint.log_prob(z, model.observed[None]) - in_model
    assert float(gap.std()) < 1e-6 * float(in_model.abs().max())  # the constraints' constants
    config, training = PosteriorConfig(pairs=512, validation=64), TrainConfig(steps=4, batch_size=128, progress=False)
    posterior = AmortisedPosterior.train(joint, encoder=config, training=training)
    posterior.save(tmp_path / "posterior")
    again = AmortisedPosterior.load(tmp_path / "posterior")
    x = again.sample(50, model.observed, seed=2)
    assert x.shape == (50, 1) and bool(((x > 0) & (x < 2)).all())


def test_priors_and_bounds_must_agree():
    model = vh.vh_model()
    with pytest.raises(ValueError, match="reaches from"):
        Joint(model, vh.vh_priors() | {"DY": Uniform(-1.0, 2.0)})
    with pytest.raises(ValueError, match="did you mean|there"):
        Joint(model, {"DYY": LogNormal(1.0, 0.1)})
    with pytest.raises(ValueError, match="no prior for 'ggZH'"):
        Joint(model, {"DY": Gamma(1.0, 1.0)})
