"""What every density of events promises: normalised in its window, sampled as it says, parameters in a box.

A density of somebody else's, `Triangle`, runs through the same tests: it is written as the index page of
`hepinf.unbinned` shows, and knows nothing of hepinf.
"""

import math

import pytest
import torch

from hepinf.core.errors import InputError
from hepinf.core.numerics import ks_uniform
from hepinf.core.protocols import ConditionalDensity
from hepinf.flows.flow import arqs
from hepinf.problems.bump import WINDOW, BreitWigner, Exponential
from hepinf.unbinned.conditional import ConditionalFlow, TruncatedDensity
from hepinf.unbinned.coordinates import Coordinates
from hepinf.unbinned.density import as_density
from hepinf.unbinned.mixture import Mixture
from hepinf.unbinned.parametric import SHAPES, ParametricDensity1D


class Triangle:
    "Falls linearly from its height at 0 to nothing at its end."

    features, parameter_names, box = ["x"], ["end"], {"end": (1.0, 3.0)}

    def log_prob(self, x, theta):
        end = theta[..., 0]
        return torch.log(2 * (1 - x[:, 0] / end).clamp_min(0) / end)

    def sample(self, n, theta, seed=0):
        rng = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        return theta * (1 - torch.rand(n, 1, generator=rng, dtype=torch.float64).sqrt())


def flow() -> ConditionalFlow:
    "Two untrained members in relative coordinates."
    space = Coordinates({"x": "log(x / m)"}, {"x": (1.0, 9.0)}, ["m"])
    members = [arqs(1, 1, transforms=1, bins=4, hidden=(8,), seed=k) for k in (1, 2)]
    for k, member in enumerate(members):
        member.standardise(0.3 * torch.randn(500, 1, generator=torch.Generator().manual_seed(k)), torch.rand(500, 1))
    return ConditionalFlow(space, ["log(m)"], {"m": (2.0, 5.0)}, members)


CASES = {  # density, range of x
    "ConditionalFlow": lambda: (flow(), (1.0, 9.0)),
    "TruncatedDensity": lambda: (TruncatedDensity(flow(), 2.0, 6.0), (2.0, 6.0)),
    "BreitWigner": lambda: (BreitWigner(), WINDOW),
    "Exponential": lambda: (Exponential(), WINDOW),
    "of somebody else": lambda: (Triangle(), (0.0, 3.0)),
    **{
        f"ParametricDensity1D, {shape}": lambda shape=shape: (
            ParametricDensity1D("x", (50.0, 550.0), {"m": (1.0, 2.0)}, shape=shape),
            (50.0, 550.0),
        )
        for shape in SHAPES
    },
}
SAVED = ["ConditionalFlow", *(f"ParametricDensity1D, {shape}" for shape in SHAPES)]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]()


def points(density) -> list[torch.Tensor]:
    "The middle of the box and points near its ends."
    low, high = torch.tensor(list(density.box.values()), dtype=torch.float64).unbind(1)
    return [low + part * (high - low) for part in (0.1, 0.5, 0.9)]


def cumulative(density, ends, theta) -> tuple[torch.Tensor, torch.Tensor]:
    "A fine grid and the integral of the density up to each of its points."
    line = torch.linspace(*ends, 100_001, dtype=torch.float64)
    with torch.no_grad():
        values = density.log_prob(line[1:-1, None], theta).exp()
    values = torch.cat([values[:1], values, values[-1:]])
    return line, torch.cat([torch.zeros(1).double(), torch.cumulative_trapezoid(values, line)])


def test_it_satisfies_the_protocol(case):
    density, _ = case
    assert isinstance(density, ConditionalDensity) and as_density(density).size >= 1
    assert list(density.box) == list(density.parameter_names) and len(density.features) == 1
    assert all(-math.inf < low < high < math.inf for low, high in density.box.values())


def test_it_is_normalised(case):
    density, ends = case
    for theta in points(density):
        assert abs(float(cumulative(density, ends, theta)[1][-1]) - 1) < 2e-3, theta


def test_samples_follow_it(case):
    density, ends = case
    for theta in points(density):
        x = density.sample(4000, theta, seed=3)
        assert x.shape == (4000, 1) and not bool(as_density(density).outside(x).any())
        assert torch.equal(x, density.sample(4000, theta, seed=3)), "the same seed, the same events"
        assert torch.equal(x, density.sample(4000, theta, torch.Generator().manual_seed(3)))
        line, integral = cumulative(density, ends, theta)
        place = (x[:, 0] - ends[0]) / (ends[1] - ends[0]) * (len(line) - 1)
        row = place.long().clamp(0, len(line) - 2)
        u = integral[row] + (place - row) * (integral[row + 1] - integral[row])
        assert float(ks_uniform((u / integral[-1]).clamp(0, 1))[1]) > 1e-3, theta


def test_it_has_a_gradient_in_its_parameters(case):
    density, _ = case
    theta = points(density)[1].requires_grad_()
    x = density.sample(50, theta.detach(), seed=1)
    (slope,) = torch.autograd.grad(density.log_prob(x, theta).sum(), theta)
    step = 1e-5 * theta.detach().abs()
    for k in range(len(theta)):
        shift = torch.zeros_like(step)
        shift[k] = step[k]
        with torch.no_grad():
            up, down = (density.log_prob(x, theta + side * shift).double().sum() for side in (1, -1))
        # a network of single precision has differences of some digits only
        torch.testing.assert_close(
            (up - down) / (2 * step[k]), slope[k], rtol=0.02, atol=2.5 / float(theta[k].detach())
        )


def test_it_is_a_term_of_a_mixture(case):
    density, _ = case
    theta = points(density)[1]
    likelihood = Mixture({"all": density}).at(density.sample(200, theta, seed=2))
    value, slope = likelihood.value_and_gradient(theta)
    assert likelihood.names == list(density.parameter_names) and math.isfinite(float(value))
    assert bool(slope.isfinite().all()) and float(likelihood.yields(theta)["all"]) == pytest.approx(200)


@pytest.mark.parametrize("name", SAVED)
def test_a_folder_makes_it_again(name, tmp_path):
    density, _ = CASES[name]()
    theta = points(density)[0]
    x = density.sample(20, theta, seed=4)
    again = type(density).load(density.save(tmp_path / "density"))
    assert torch.equal(again.log_prob(x, theta), density.log_prob(x, theta)) and again.box == density.box
    (tmp_path / "density" / "card.json").write_text("{}")
    with pytest.raises(InputError):
        type(density).load(tmp_path / "density")
