"""What every likelihood promises to those who ask it: names, bounds and a start, derivatives, data sets, copies.

Each is made by a named function below; a new implementation is one more line in `LIKELIHOODS`.
"""

import math

import pytest
import torch

from hepinf.binned.model import BinnedModel
from hepinf.binned.processes import Parameter, Process, Variation
from hepinf.binned.stacked import stack
from hepinf.core.likelihood import as_likelihood, floating
from hepinf.core.protocols import Experiment, Likelihood
from hepinf.infer.hmc import hmc
from hepinf.infer.mle import fit
from hepinf.posterior.joint import Joint
from hepinf.problems import bump
from hepinf.stats.priors import Gamma, Normal, Poisson
from hepinf.unbinned.mixture import Mixture
from hepinf.workspaces.patched import read_patched, samples_of
from hepinf.workspaces.schema import example_workspace


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def counting_model() -> BinnedModel:
    "Signal and background in two bins; the background was counted in a control region."
    return BinnedModel(
        [Process("signal", t(3.0, 8.0), norm="mu", mc_weight=0.02), Process("background", t(50.0, 20.0), norm="b")],
        [Parameter("mu", 1.0, (0.0, math.inf)), Parameter("b", 1.0, (0.0, math.inf), Poisson(100.0))],
    )


def shape_model() -> BinnedModel:
    "Three bins, a signal, and a background with a free norm and a constrained slope."
    slope = Variation(t(90.0, 62.0, 36.0), t(110.0, 58.0, 26.0), 0.5)
    return BinnedModel(
        [
            Process("signal", t(0.0, 10.0, 20.0), norm="mu"),
            Process("background", t(100.0, 60.0, 30.0), norm="b", variations={"slope": slope}),
        ],
        [
            Parameter("mu", 1.0, (-2.0, 10.0)),
            Parameter("b", 1.0, (0.1, 10.0)),
            Parameter("slope", 0.0, (-2.0, 2.0), Normal(0.0, 0.5)),
        ],
        interpolation="quadratic_taylor",
    )


def example() -> Likelihood:
    return BinnedModel.from_workspace(example_workspace()).at()


def example_with_fixed() -> Likelihood:
    workspace = example_workspace()
    workspace["measurements"][0]["config"]["parameters"] = [{"name": "mu", "inits": [1.0], "fixed": True}]
    return BinnedModel.from_workspace(workspace).at()


def example_toys() -> Likelihood:
    model = BinnedModel.from_workspace(example_workspace())
    return model.at(*model.sample(model.nominal.expand(2, 3, -1), seed=1))


def shape_toys() -> Likelihood:
    model = shape_model()
    return model.at(*model.sample(model.nominal.expand(5, -1), seed=2))


def normal(theta):
    "Two correlated parameters."
    x, y = theta.unbind(-1)
    return -0.5 * (x**2 + (y - 0.8 * x) ** 2 / 0.36) - 0.05 * x**4


def joint() -> Likelihood:
    return Joint(counting_model(), priors={"mu": Gamma(2.0, 1.0)}).at(t(57.0, 29.0))


def mixture() -> Likelihood:
    "A resonance on a falling background, with exact densities and the numbers of events of both maximised."
    peak, tail = bump.BreitWigner(), bump.Exponential()
    events = [peak.sample(300, t(260.0, 20.0), seed=1), tail.sample(1000, t(100.0), seed=2)]
    likelihood = Mixture({"signal": peak, "background": tail}).at(torch.cat(events))
    return likelihood.starting_at(t(258.0, 22.0, 105.0))


def stacked() -> Likelihood:
    "Two signals on one background, with a data set for each."
    workspace = example_workspace()
    signal = workspace["channels"][0]["samples"].pop(0)
    patches = [
        [{"op": "add", "path": "/channels/0/samples/0", "value": {**signal, "data": [3.0, s]}}] for s in (8.0, 5.0)
    ]
    known = {id(sample) for sample in samples_of(workspace)}
    return stack([read_patched(workspace, patch, known) for patch in patches], known)


LIKELIHOODS = {
    "counting": lambda: counting_model().at(t(57.0, 29.0)),
    "shape": lambda: shape_model().at(t(105.0, 72.0, 47.0)),
    "shape, batch of toys": shape_toys,
    "example workspace": example,
    "example workspace, mu fixed": example_with_fixed,
    "example workspace, batch of toys": example_toys,
    "function": lambda: as_likelihood(normal, t(0.3, 0.1), ["x", "y"], {"x": (-3.0, 3.0)}),
    "free parameters alone": lambda: floating(example_with_fixed()),
    "joint density": joint,
    "joint density, whitened": lambda: joint().whitened(),
    "mixture of events": mixture,
    "stack of signals": stacked,
}
EXPERIMENTS = [name for name, make in LIKELIHOODS.items() if isinstance(make(), Experiment)]


@pytest.fixture(params=LIKELIHOODS, ids=str)
def likelihood(request) -> Likelihood:
    return LIKELIHOODS[request.param]()


@pytest.fixture(params=EXPERIMENTS, ids=str)
def experiment(request) -> Experiment:
    return LIKELIHOODS[request.param]()


def scales(likelihood: Likelihood) -> torch.Tensor:
    "Small steps of the parameters, in their units."
    return likelihood.start.reshape(-1, likelihood.start.shape[-1])[0].abs().clamp_min(0.5)


def points(likelihood: Likelihood, n: int) -> torch.Tensor:
    "Points near the start (n, *batch, parameters), inside the bounds."
    shape = (n, *likelihood.batch_shape, len(likelihood.names))
    noise = 0.08 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = likelihood.bounds.unbind(-1)
    return (likelihood.start + noise * scales(likelihood)).clamp(low + 1e-3, high - 1e-3)


def rows(likelihood: Likelihood) -> tuple[Likelihood, torch.Tensor]:
    "One data set for each row, and a point for each."
    shape = likelihood.batch_shape or torch.Size([1])
    (point,) = points(likelihood, 1)
    return likelihood.flatten(shape), point.reshape(shape.numel(), -1)


def free(likelihood: Likelihood) -> torch.Tensor:
    return (~likelihood.fixed).nonzero()[:, 0]


def test_names_bounds_start_and_fixed_belong_together(likelihood):
    assert isinstance(likelihood, Likelihood)
    size = len(likelihood.names)
    assert len(set(likelihood.names)) == size and all(isinstance(name, str) for name in likelihood.names)
    assert likelihood.bounds.shape == (size, 2) and likelihood.fixed.shape == (size,)
    assert likelihood.start.shape[-1] == size
    low, high = likelihood.bounds.unbind(-1)
    assert bool(((low <= likelihood.start) & (likelihood.start <= high)).all())
    value = likelihood.log_prob(likelihood.start.expand(*likelihood.batch_shape, size))
    assert value.shape == likelihood.batch_shape and bool(value.isfinite().all())


def test_a_batch_of_points_is_its_rows(likelihood):
    theta = points(likelihood, 3)
    together, alone = likelihood.log_prob(theta), torch.stack([likelihood.log_prob(point) for point in theta])
    assert together.shape == theta.shape[:-1]
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-9)


def test_the_gradient_is_that_of_autograd_and_of_differences(likelihood):
    (theta,) = points(likelihood, 1)
    value, gradient = likelihood.value_and_gradient(theta)
    torch.testing.assert_close(value, likelihood.log_prob(theta))
    point = theta.clone().requires_grad_()
    (exact,) = torch.autograd.grad(likelihood.log_prob(point).sum(), point)
    torch.testing.assert_close(gradient, exact, rtol=1e-7, atol=1e-7)
    step = 1e-5 * scales(likelihood)
    for k in range(len(likelihood.names)):
        move = torch.zeros_like(step).index_fill(0, torch.tensor([k]), float(step[k]))
        slope = (likelihood.log_prob(theta + move) - likelihood.log_prob(theta - move)) / (2 * step[k])
        torch.testing.assert_close(gradient[..., k], slope, rtol=1e-4, atol=1e-4)


def test_the_curvature_is_minus_the_hessian(likelihood):
    flat, theta = rows(likelihood)
    some = free(likelihood)
    expansion = flat.quadratic(theta, some)
    hessian = torch.autograd.functional.hessian(lambda x: flat.log_prob(x).sum(), theta)
    exact = -torch.stack([hessian[k, :, k] for k in range(len(theta))])[:, some[:, None], some]
    torch.testing.assert_close(expansion.curvature, exact, rtol=1e-7, atol=1e-6)
    value, gradient = flat.value_and_gradient(theta)
    torch.testing.assert_close(expansion.value, value)
    torch.testing.assert_close(expansion.gradient, gradient[:, some], rtol=1e-7, atol=1e-7)
    step = 1e-5 * scales(likelihood)
    for column, k in enumerate(some.tolist()):
        move = torch.zeros_like(step).index_fill(0, torch.tensor([k]), float(step[k]))
        change = flat.value_and_gradient(theta - move)[1] - flat.value_and_gradient(theta + move)[1]
        torch.testing.assert_close(
            expansion.curvature[..., column], change[:, some] / (2 * step[k]), rtol=1e-4, atol=1e-3
        )


def test_data_sets_are_taken_and_points_added(likelihood):
    flat, theta = rows(likelihood)
    value = flat.log_prob(theta)
    (point,) = points(likelihood, 1)
    torch.testing.assert_close(value, likelihood.log_prob(point).reshape(-1))
    if not likelihood.separable:
        return
    last = torch.tensor([len(theta) - 1])
    torch.testing.assert_close(flat.take(last).log_prob(theta[last]), value[last])
    several = points(likelihood, 4).movedim(0, -2)
    by_point = likelihood.with_point_axis().log_prob(several)
    torch.testing.assert_close(by_point, torch.stack([likelihood.log_prob(p) for p in several.unbind(-2)], -1))


def test_copies_leave_the_original_alone(likelihood):
    start, bounds = likelihood.start.clone(), likelihood.bounds.clone()
    (theta,) = points(likelihood, 1)
    value = likelihood.log_prob(theta)
    name = likelihood.names[int(free(likelihood)[0])]
    k = likelihood.names.index(name)
    low, high = float(start[..., k].min()) - 0.25, float(start[..., k].max()) + 0.25
    moved, narrow = likelihood.starting_at(theta), likelihood.within({name: (low, high)})
    assert torch.equal(moved.start, theta) and narrow.bounds[k].tolist() == [low, high]
    assert torch.equal(likelihood.start, start) and torch.equal(likelihood.bounds, bounds)
    for other in (moved, narrow):
        torch.testing.assert_close(other.log_prob(theta), value)
    with pytest.raises(ValueError, match="nothing"):
        likelihood.within({name: (1.0, 1.0)})


def test_a_fit_ends_where_the_gradient_vanishes(likelihood):
    best = fit(likelihood)
    assert best.ok, best.problems
    _, gradient = likelihood.value_and_gradient(best.theta)
    low, high = likelihood.bounds.unbind(-1)
    inside = (best.theta > low) & (best.theta < high) & ~likelihood.fixed
    assert bool(inside.any())
    assert float((gradient * best.error)[inside].abs().max()) < 1e-3
    start = likelihood.start.expand_as(best.theta)
    assert torch.equal(best.theta[..., likelihood.fixed], start[..., likelihood.fixed])
    assert bool((best.log_prob >= likelihood.log_prob(start) - 1e-9).all())


def test_the_first_draws_of_a_chain_are_finite(likelihood):
    one = (
        likelihood if not likelihood.batch_shape else likelihood.flatten(likelihood.batch_shape).take(torch.tensor([0]))
    )
    if one.batch_shape:
        pytest.skip("chains are drawn for one data set")
    chains = hmc(one, draws=4, warmup=20, chains=4, steps=4, seed=1)
    assert chains.names == [one.names[k] for k in free(one)]
    assert bool(chains.theta.isfinite().all())


def test_the_fit_of_expected_data_gives_the_point_back(experiment):
    (theta,) = points(experiment, 1)
    theta[..., experiment.fixed] = experiment.start[..., experiment.fixed]
    best = fit(experiment.asimov(theta))
    assert best.ok, best.problems
    torch.testing.assert_close(best.theta, theta, rtol=1e-5, atol=1e-5)


def test_toys_are_other_data_of_the_same_experiment(experiment):
    (theta,) = points(experiment, 1)
    many = theta.expand(7, *theta.shape)
    toys, again, others = (experiment.toys(many, seed=seed) for seed in (1, 1, 2))
    assert toys.batch_shape == many.shape[:-1] and toys.names == experiment.names
    values = [x.log_prob(many) for x in (toys, again, others)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
