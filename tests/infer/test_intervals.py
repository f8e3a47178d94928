"""Ends of intervals against dense scans of random small models: none is lost, none is wrong."""

import pytest
import torch
from random_models import random_workspace

from hepinf.binned.model import BinnedModel
from hepinf.infer.intervals import interval, profile
from hepinf.infer.mle import fit


def scanned_end(model, name, best, bound, points=161):
    "First crossing of 1 on the way from the best value to a bound: its bracket, or the bound."
    start = float(best[name])
    values = torch.linspace(start, bound, points, dtype=torch.float64)
    scan = profile(model, name, values, fit=best).scan
    above = (scan > 1).nonzero()
    if not len(above):
        return bound, bound
    k = int(above[0, 0])
    return float(values[k - 1]), float(values[k])


def lost_ends(seed):
    "Ends that differ from those of the scan."
    model = BinnedModel.from_workspace(random_workspace(seed))
    best = fit(model)
    wrong = []
    for name in ("mu", "a"):
        found = interval(model, name, fit=best)
        for end, bound in zip((found.low, found.high), model.bounds[model.index(name)].tolist()):
            a, b = sorted(scanned_end(model, name, best, bound))
            width = b - a + 1e-4
            if not a - width <= float(end) <= b + width:
                wrong.append((seed, name, float(end), (a, b), found.problems))
    return wrong


@pytest.mark.parametrize("block", range(3))
def test_no_end_of_an_interval_is_lost(block):
    wrong = [case for seed in range(8 * block, 8 * block + 8) for case in lost_ends(seed)]
    assert not wrong, wrong


def test_the_profile_with_a_kink_where_the_strength_reaches_zero():
    # beyond a = 0.83 mu sits at 0: q(a) = 2 [nu - 70 - 70 ln(nu / 70)] + a^2 with nu = 50 x 1.5^a
    modifiers = [{"name": "a", "type": "normsys", "data": {"lo": 0.9, "hi": 1.5}}]
    signal = {"name": "s", "data": [10.0], "modifiers": [{"name": "mu", "type": "normfactor", "data": None}]}
    workspace = {
        "version": "1.0.0",
        "channels": [{"name": "c", "samples": [signal, {"name": "b", "data": [50.0], "modifiers": modifiers}]}],
        "observations": [{"name": "c", "data": [70.0]}],
        "measurements": [{"name": "m", "config": {"poi": "mu", "parameters": []}}],
    }
    model = BinnedModel.from_workspace(workspace)
    found = interval(model, "a")
    scan = profile(model, "a", [float(found.high)])
    assert found.ok and abs(float(scan.scan[0]) - 1) < 1e-4
    assert float(scan.theta[0, model.index("mu")]) == 0.0
