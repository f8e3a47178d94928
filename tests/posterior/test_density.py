"""The density of a joint model's parameters at given counts: one density in two coordinates, for fits and chains."""

import math
import os
from pathlib import Path

import pytest
import torch

from hepinf.binned.model import BinnedModel
from hepinf.binned.processes import Parameter, Process, Variation
from hepinf.core.likelihood import as_likelihood, autograd_gradient
from hepinf.core.protocols import Likelihood, LogDensity
from hepinf.infer.hmc import hmc
from hepinf.infer.intervals import interval
from hepinf.infer.mle import fit
from hepinf.posterior.joint import Joint
from hepinf.problems import vh
from hepinf.stats.priors import Gamma, LogNormal, Normal, TruncatedNormal, Uniform

DATA = os.environ.get("HEPINF_DATA")
PUBLISHED = sorted(Path(DATA, "workspaces").glob("ttbar*.json"))[:1] if DATA else []


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def counting(background: float = 10.0) -> Joint:
    """One bin, one strength with a flat prior: the posterior is a truncated Gamma density."""
    parameters = [Parameter("mu", 1.0, (0.0, 60.0))]
    model = BinnedModel([Process("signal", t(1.0), "mu"), Process("background", t(background), None)], parameters)
    return Joint(model, {"mu": Uniform(0.0, 60.0)})


def shapes(mc: str) -> Joint:
    tilt = {"tilt": Variation(t(66.0, 42.0, 23.0), t(54.0, 38.0, 27.0), 1.0)}
    processes = [
        Process("signal", t(2.0, 5.0, 12.0), "mu", mc_weight=0.1),
        Process("background", t(60.0, 40.0, 25.0), "norm", tilt, mc_weight=3.0),
    ]
    parameters = [Parameter(name, 1.0, (0.0, math.inf)) for name in ("mu", "norm")]
    parameters.append(Parameter("tilt", 0.0, constraint=Normal(0.0, 1.0)))
    return Joint(BinnedModel(processes, parameters), {"mu": Gamma(1.25, 2.0), "norm": LogNormal(1.0, 0.27)}, mc=mc)


def published(path: Path) -> Joint:
    model = BinnedModel.from_workspace(path)
    free = [p.name for p in model.parameters if p.constraint is None and not p.fixed]
    return Joint(model, {name: TruncatedNormal(0.0, 2.0, 1.0, 0.5) for name in free})


CASES = {
    "counting": counting,
    "gamma": lambda: shapes("gamma"),
    "no simulation": lambda: shapes("none"),
    "vh": vh.vh_joint,
} | {path.stem: lambda path=path: published(path) for path in PUBLISHED}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    joint = CASES[request.param]()
    z, counts = joint.sample(6, seed=3)
    return joint, 0.7 * z, counts


def test_both_are_likelihoods(case):
    joint, _, counts = case
    for density in (joint.at(counts[0]), joint.at(counts[0]).whitened()):
        assert isinstance(density, LogDensity) and isinstance(density, Likelihood)
        assert as_likelihood(density) is density and list(density.names) == joint.names
        start = density.start
        assert bool((density.bounds[:, 0] <= start).all()) and bool((start <= density.bounds[:, 1]).all())
        assert bool(density.log_prob(start).isfinite())


def test_gradients_are_those_of_autograd(case):
    joint, z, counts = case
    for density, points in ((joint.at(counts[0]), joint.parameters(z)), (joint.at(counts[0]).whitened(), z)):
        value, gradient = density.value_and_gradient(points)
        by_autograd = autograd_gradient(density.log_prob, points)
        torch.testing.assert_close(value, by_autograd[0])
        scale = 1 + by_autograd[1].abs().max()
        torch.testing.assert_close(gradient / scale, by_autograd[1] / scale, rtol=1e-8, atol=1e-10)


def test_the_two_differ_by_the_jacobian(case):
    """Up to the interpolation of the Gamma density's map, which has nine digits."""
    joint, z, counts = case
    density = joint.at(counts[0])
    x, slope = joint.whitening(z)
    torch.testing.assert_close(
        density.log_prob(x) + slope.log().sum(-1), density.whitened().log_prob(z), rtol=1e-7, atol=1e-6
    )


def test_batches_are_data_sets_of_their_own(case):
    joint, z, counts = case
    both = joint.at(counts)
    assert both.batch_shape == (6,) and both.flatten((6,)).take(torch.tensor([2])).counts.shape == (1, joint.bins)
    x = joint.parameters(z)
    alone = torch.stack([joint.at(row).log_prob(point) for row, point in zip(counts, x)])
    torch.testing.assert_close(both.log_prob(x), alone)
    assert both.with_point_axis().log_prob(x[:, None].expand(-1, 3, -1)).shape == (6, 3)


def test_counting_experiment_in_closed_form():
    """A flat prior and n counts leave the Gamma density of the expectation, cut off at the background."""
    joint, background, n = counting(), 10.0, 18.0
    density = joint.at(t(n))
    chains = hmc(density, draws=300, chains=16, warmup=100, seed=1)
    nu = background + torch.linspace(0, 60, 60_001, dtype=torch.float64)
    weights = torch.softmax(torch.xlogy(n, nu) - nu, 0)
    mean = float(weights @ nu) - background
    sd = float((weights @ (nu - background - mean) ** 2).sqrt())
    size = float(chains.ess[0])
    assert chains.ok, chains.problems
    assert abs(float(chains["mu"].mean()) - mean) < 5 * sd / size**0.5
    assert abs(float(chains["mu"].std()) / sd - 1) < 5 / size**0.5
    best = fit(density)
    assert abs(float(best["mu"]) - (n - background)) < 1e-4  # the prior is flat
    assert abs(float(best.error[0]) / n**0.5 - 1) < 1e-3
    found = interval(density, "mu")
    assert found.low < n - background < found.high


def test_mode_of_every_case_has_no_gradient(case):
    joint, _, counts = case
    best = fit(joint.at(counts[0]))
    density = joint.at(counts[0])
    inside = (best.theta - density.bounds[:, 0] > 1e-6) & (density.bounds[:, 1] - best.theta > 1e-6)
    gradient = density.value_and_gradient(best.theta)[1] * best.error
    assert best.ok, best.problems
    assert float(gradient[inside & best.error.isfinite()].abs().max()) < 1e-2  # in units of the error


def test_chains_in_both_coordinates_agree():
    joint = shapes("gamma")
    observed = t(58.0, 55.0, 40.0)
    settings = {"draws": 200, "chains": 16, "warmup": 100}
    own = hmc(joint.at(observed), seed=1, **settings)
    whitened = hmc(joint.at(observed).whitened(), seed=2, **settings)
    other = joint.parameters(whitened.flat())
    size = 1 / (1 / own.ess + 1 / whitened.ess)
    assert (((own.mean - other.mean(0)) / own.sd).abs() < 5 / size.sqrt()).all()
    assert ((own.sd / other.std(0) - 1).abs() < 5 / size.sqrt()).all()


def test_what_is_no_observation_is_refused():
    joint = shapes("gamma")
    with pytest.raises(ValueError, match="2 bins"):
        joint.at(t(1.0, 2.0))
    with pytest.raises(ValueError, match="bin 1"):
        joint.at(t(1.0, -2.0, 3.0))
    assert joint.at(joint.model.asimov()).counts.dtype == torch.float64
