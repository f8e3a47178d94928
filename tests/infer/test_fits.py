"Fits and hypothesis tests against pyhf, on random small workspaces and on the published ones at hand."

import json
import os
import warnings
from pathlib import Path

import numpy as np
import peers
import pyhf
import pytest
import torch

from hepinf.binned.model import BinnedModel
from hepinf.infer.hypotest import discovery, hypotest
from hepinf.infer.mle import fit
from hepinf.infer.upper_limit import upper_limit

DATA = os.environ.get("HEPINF_DATA")
PUBLISHED = sorted((Path(DATA) / "workspaces").glob("*.json")) if DATA else []


@pytest.fixture(autouse=True)
def quiet_pyhf():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    pyhf.set_backend("numpy")
    torch.set_default_dtype(torch.float32)  # pyhf's pytorch backend leaves float64


def counting_workspace(seed: int) -> dict:
    "A signal of unknown strength on a background with rate, shape and statistical uncertainties."
    rng = np.random.default_rng(seed)
    bins = rng.integers(1, 4)
    background, signal = rng.uniform(20, 100, bins), rng.uniform(2, 15, bins)
    low, high = background * rng.uniform(0.85, 1, bins), background * rng.uniform(1, 1.15, bins)
    spread = (background * rng.uniform(0.01, 0.1, bins)).tolist()
    modifiers = [
        {"name": "norm", "type": "normsys", "data": {"lo": rng.uniform(0.8, 0.98), "hi": rng.uniform(1.02, 1.2)}},
        {"name": "shape", "type": "histosys", "data": {"lo_data": low.tolist(), "hi_data": high.tolist()}},
        {"name": "mc", "type": ("staterror", "shapesys")[seed % 2], "data": spread},
    ]
    strength = {"name": "mu", "type": "normfactor", "data": None}
    counts = rng.poisson(background + rng.uniform(0, 1.5) * signal).tolist()
    samples = [
        {"name": "signal", "data": signal.tolist(), "modifiers": [strength]},
        {"name": "background", "data": background.tolist(), "modifiers": modifiers},
    ]
    parameters = [{"name": "mu", "bounds": [[0.0, 20.0]], "inits": [1.0]}]
    return {
        "version": "1.0.0",
        "channels": [{"name": "bins", "samples": samples}],
        "observations": [{"name": "bins", "data": counts}],
        "measurements": [{"name": "main", "config": {"poi": "mu", "parameters": parameters}}],
    }


@pytest.mark.parametrize("seed", range(12))
def test_hypothesis_tests_equal_pyhf(seed):
    "CLs, its expected band, p0 and limits; the differences are the tolerance of pyhf's minimiser."
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-4))
    workspace = counting_workspace(seed)
    ours, theirs = BinnedModel.from_workspace(workspace), pyhf.Workspace(workspace).model()
    data = pyhf.Workspace(workspace).data(theirs)
    tested = hypotest(ours, torch.tensor([0.5, 1.0, 2.0]))
    assert tested.ok
    for k, mu in enumerate((0.5, 1.0, 2.0)):
        observed, band = pyhf.infer.hypotest(mu, data, theirs, test_stat="qtilde", return_expected_set=True)
        assert float(tested.cls[k]) == pytest.approx(float(observed), abs=2e-4)
        assert tested.cls_expected[k].tolist() == pytest.approx([float(value) for value in band], abs=2e-4)
    assert float(discovery(ours).p0) == pytest.approx(
        float(pyhf.infer.hypotest(0.0, data, theirs, test_stat="q0")), abs=2e-4
    )
    if seed == 0:
        limit = upper_limit(ours)
        observed, expected = pyhf.infer.intervals.upper_limits.upper_limit(data, theirs, scan=None, rtol=1e-5)
        assert limit.ok and float(limit.observed) == pytest.approx(float(observed), rel=1e-3)
        assert limit.expected.tolist() == pytest.approx([float(value) for value in expected], rel=1e-3)


def test_limits_of_many_data_sets_equal_those_one_by_one():
    model = BinnedModel.from_workspace(counting_workspace(1))
    truth = model.point(mu=1.0).expand(20, -1)
    counts, auxdata = model.sample(truth, seed=0)
    together = upper_limit(model.at(counts, auxdata))
    assert together.ok
    for row in (0, 7, 19):
        alone = upper_limit(model.at(counts[row], auxdata[row]))
        torch.testing.assert_close(together.observed[row], alone.observed, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.expected[row], alone.expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_likelihoods_are_fitted_as_well_as_pyhf_does(path):
    "Our -2 log L is never more than 1e-3 above pyhf's, and its toys all converge."
    model = BinnedModel.from_workspace(path)
    ours = fit(model)
    assert ours.converged, ours.problems
    workspace = pyhf.Workspace(json.loads(path.read_text()))
    pyhf.set_backend(peers.fitting_backend(), "scipy", precision="64b")
    theirs = workspace.model(poi_name=model.poi)
    _, reference = pyhf.infer.mle.fit(workspace.data(theirs), theirs, return_fitted_val=True)
    assert -2 * float(ours.log_prob) <= float(reference) + 1e-3
    repeated = model.at().toys(ours.theta.expand(30, -1), seed=1)
    toys = fit(repeated)
    assert toys.converged.all(), toys.problems
    # no toy ends below the point that it was made at
    assert (toys.log_prob >= repeated.log_prob(ours.theta) - 1e-6).all()
