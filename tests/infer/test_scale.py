"""Models of many channels: the same numbers as whole ones, and time and memory that grow with the channels."""

import json
import subprocess
import sys

import pytest
import torch

from hepinf.binned.blocks import BlockYields
from hepinf.binned.derivatives import PoissonYields
from hepinf.binned.model import BinnedModel
from hepinf.infer.mle import fit
from hepinf.problems.combination import combination_workspace


@pytest.fixture(scope="module")
def pair():
    "A model in blocks, and the same one whole."
    import hepinf.binned.blocks as blocks

    workspace = combination_workspace(20)
    parts = BinnedModel.from_workspace(workspace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_PARAMETERS", 10_000)
        whole = BinnedModel.from_workspace(workspace)
    assert type(parts.yields) is BlockYields and type(whole.yields) is PoissonYields
    return parts, whole


def points(model: BinnedModel, count: int) -> torch.Tensor:
    "Points around the nominal one, some with pulls beyond 1."
    generator = torch.Generator().manual_seed(3)
    width = torch.where(model.nominal == 0, 0.7, 0.05)
    return model.nominal + width * torch.randn(count, len(width), generator=generator, dtype=torch.float64)


def test_the_number_of_parameters_is_that_of_the_study():
    sizes = {c: len(BinnedModel.from_workspace(combination_workspace(c)).parameters) for c in (2, 8, 32)}
    assert sizes == {2: 106, 8: 238, 32: 766}


def test_blocks_have_the_derivatives_of_the_whole(pair):
    parts, whole = pair
    theta = points(whole, 3)
    torch.testing.assert_close(parts.expected(theta), whole.expected(theta), rtol=1e-12, atol=0)
    for order in (1, 2):
        found = parts.derivatives(theta, whole.observed, order=order)
        for mine, reference in zip(found, whole.derivatives(theta, whole.observed, order=order)):
            torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-8)
    for mine, reference in zip(parts.linearised(theta, parts.observed), whole.linearised(theta, whole.observed)):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-8)


def test_derivatives_of_blocks_are_those_of_autograd(pair):
    model, _ = pair
    theta = points(model, 1)[0]
    _, gradient, hessian = model.derivatives(theta, model.observed)
    exact = torch.func.grad(lambda x: model.log_prob(x, model.observed))
    torch.testing.assert_close(gradient, exact(theta), rtol=1e-10, atol=1e-9)
    directions = torch.eye(len(theta), dtype=torch.float64)[::17]
    products = torch.vmap(lambda v: torch.func.jvp(exact, (theta,), (v,))[1])(directions)
    torch.testing.assert_close(hessian[::17], products, rtol=1e-9, atol=1e-8)


def test_fits_in_blocks_find_the_same_maximum(pair):
    "Newton stops at edm < 1e-8 and takes the last step: both are closer than 1e-8 to the top, 1e-4 sigma apart."
    parts, whole = pair
    best, reference = fit(parts), fit(whole)
    assert best.converged and reference.converged
    assert abs(float(best.log_prob - reference.log_prob)) < 1e-8
    assert ((best.theta - reference.theta).abs() < 1e-4 * reference.error).all()
    torch.testing.assert_close(best.error, reference.error, rtol=1e-4, atol=0)


def test_toys_fixed_parameters_and_bounds_work_in_blocks(pair):
    parts, whole = pair
    counts, auxdata = whole.sample(whole.point(mu=0.0).expand(3, -1), seed=5)  # mu ends at its bound in some
    counts[0] *= 0.97
    for fixed in ({}, {"mu": 1.3}):
        best, reference = (fit(model.at(counts, auxdata), fixed=fixed) for model in (parts, whole))
        assert best.converged.all() and reference.converged.all()
        assert torch.equal(best.at_bound, reference.at_bound)
        torch.testing.assert_close(best.log_prob, reference.log_prob, rtol=0, atol=1e-7)


def test_a_hundred_channels_stay_below_a_gigabyte():
    "Peak of a process that loads, fits and computes errors for 2262 parameters; dense tables alone took 0.6 GB."
    script = """
import json, pathlib
from hepinf.binned.model import BinnedModel
from hepinf.infer.mle import fit
from hepinf.problems.combination import combination_workspace
model = BinnedModel.from_workspace(combination_workspace(100))
best = fit(model)
assert bool(best.converged) and bool((best.error[~best.at_bound] > 0).all())
# not ru_maxrss, which a child inherits from the process that started it
peak = next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([len(model.parameters), int(peak.split()[1]) / 1e6]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    parameters, memory = json.loads(done.stdout)
    assert parameters == 2262 and memory < 1.0
