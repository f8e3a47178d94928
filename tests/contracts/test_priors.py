"""What every prior promises: a normalised density, its distribution function and the inverse, draws, a support.

A class of somebody else's, `Laplace`, runs through the same tests: it is written as the index page of
`hepinf.stats` shows, and knows nothing of hepinf.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from hepinf.core.numerics import ks_uniform
from hepinf.core.protocols import Prior
from hepinf.stats.priors import Gamma, LogNormal, Normal, Poisson, TruncatedNormal, Uniform
from hepinf.stats.whitening import Whitening

DRAWS = 100_000
DIGITS = 1e-8  # torch's incomplete gamma function has an error of a few 1e-9


@dataclass(frozen=True)
class Laplace:
    "A density with heavier tails than a normal one."

    mean: float
    scale: float
    support = (-math.inf, math.inf)

    def log_prob(self, value):
        return -(value - self.mean).abs() / self.scale - math.log(2 * self.scale)

    def cdf(self, value):
        tail = 0.5 * torch.exp(-(value - self.mean).abs() / self.scale)
        return torch.where(value < self.mean, tail, 1 - tail)

    def icdf(self, p):
        return self.mean - self.scale * torch.sign(p - 0.5) * torch.log1p(-2 * (p - 0.5).abs())

    def sample(self, shape, seed=0):
        rng = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        return self.icdf(torch.rand(shape, generator=rng, dtype=torch.float64))


def lognormal(mean: float, sd: float):
    "scipy's, with this mean and standard deviation."
    sigma = math.sqrt(math.log(1 + (sd / mean) ** 2))
    return stats.lognorm(sigma, scale=mean * math.exp(-(sigma**2) / 2))


def truncated(low: float, high: float, mean: float, sd: float):
    return stats.truncnorm((low - mean) / sd, (high - mean) / sd, loc=mean, scale=sd)


CASES = {
    "Normal": (Normal(1.0, 0.3), stats.norm(1.0, 0.3)),
    "Gamma": (Gamma(1.25, 4.0), stats.gamma(1.25, scale=4.0)),
    "Gamma, nearly normal": (Gamma(900.0, 0.01), stats.gamma(900.0, scale=0.01)),
    "Gamma of a count": (Poisson(25.0, 20.0).as_prior(), stats.gamma(21.0, scale=0.04)),
    "LogNormal": (LogNormal(1.0, 0.27), lognormal(1.0, 0.27)),
    "Uniform": (Uniform(-1.0, 3.0), stats.uniform(-1.0, 4.0)),
    "TruncatedNormal": (TruncatedNormal(0.0, 5.0, 1.0, 0.4), truncated(0.0, 5.0, 1.0, 0.4)),
    "TruncatedNormal, one end": (TruncatedNormal(0.0, math.inf, -0.5, 1.0), truncated(0.0, math.inf, -0.5, 1.0)),
    "of somebody else": (Laplace(0.5, 2.0), stats.laplace(0.5, 2.0)),
}
each = pytest.mark.parametrize(("prior", "reference"), CASES.values(), ids=CASES.keys())


def tensor(x) -> torch.Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def quantiles(reference, n: int = 201) -> torch.Tensor:
    "Points from far below to far above the bulk."
    return tensor(reference.ppf(stats.norm.cdf(torch.linspace(-4, 4, n).double().numpy())))


def density(prior, x: float) -> float:
    return math.exp(float(prior.log_prob(tensor(x))))


@each
def test_it_is_a_prior(prior, reference):
    assert isinstance(prior, Prior)


def test_a_count_is_none():
    "The probability of a count is no density of its parameter."
    assert not isinstance(Poisson(25.0), Prior)


@each
def test_density_and_distribution_function_are_those_of_scipy(prior, reference):
    x = quantiles(reference)
    torch.testing.assert_close(prior.log_prob(x), tensor(reference.logpdf(x.numpy())), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prior.cdf(x), tensor(reference.cdf(x.numpy())), rtol=DIGITS, atol=1e-12)


@each
def test_density_integrates_to_one(prior, reference):
    "From the 1e-9 to the 1 - 1e-9 quantile, in two halves so that the bulk is met."
    low, middle, high = (float(reference.ppf(p)) for p in (1e-9, 0.5, 1 - 1e-9))
    area = sum(quad(lambda x: density(prior, x), *ends, limit=400)[0] for ends in ((low, middle), (middle, high)))
    assert abs(area - 1) < 1e-7


@each
def test_the_slope_of_the_distribution_function_is_the_density(prior, reference):
    x = quantiles(reference, 40).requires_grad_()  # an even number: no point at the kink of a Laplace density
    (slope,) = torch.autograd.grad(prior.cdf(x).sum(), x)
    torch.testing.assert_close(slope, prior.log_prob(x).exp().detach(), rtol=1e-8, atol=1e-12)


@each
def test_icdf_inverts_cdf(prior, reference):
    x = quantiles(reference)
    width = float(reference.std())
    assert ((prior.icdf(prior.cdf(x)) - x).abs() < DIGITS * width + 1e-9 * x.abs()).all()
    p = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    torch.testing.assert_close(prior.cdf(prior.icdf(p)), p, rtol=DIGITS, atol=1e-12)


@each
def test_draws_have_the_moments_and_the_distribution(prior, reference):
    "Five standard errors: of a mean sd / sqrt(n), of a variance its share sqrt((kurtosis + 2) / n)."
    x = prior.sample((DRAWS,), seed=3)
    mean, variance, _, kurtosis = (float(moment) for moment in reference.stats("mvsk"))
    assert x.dtype == torch.float64 and x.shape == (DRAWS,)
    assert abs(float(x.mean()) - mean) < 5 * math.sqrt(variance / DRAWS)
    assert abs(float(x.var()) / variance - 1) < 5 * math.sqrt((kurtosis + 2) / DRAWS)
    assert float(ks_uniform(prior.cdf(x))[1]) > 1e-4


@each
def test_a_seed_repeats_and_a_generator_advances(prior, reference):
    rng = torch.Generator().manual_seed(5)
    first = prior.sample((2, 3), seed=rng)
    assert first.shape == (2, 3) and torch.equal(first, prior.sample((2, 3), seed=5))
    assert not torch.equal(first, prior.sample((2, 3), seed=rng))


@each
def test_nothing_lies_outside_the_support(prior, reference):
    low, high = prior.support
    assert (low, high) == pytest.approx(reference.support(), abs=1e-12)
    assert bool(torch.isfinite(prior.log_prob(quantiles(reference))).all())
    for end, side, share in ((low, -1, 0.0), (high, 1, 1.0)):
        if math.isfinite(end):
            beyond = tensor([end + side * 0.1, end + side * 1e3])
            assert prior.log_prob(beyond).tolist() == [-math.inf] * 2 and prior.cdf(beyond).tolist() == [share] * 2
            assert abs(float(prior.icdf(tensor(share))) - end) < 1e-12


@each
def test_batches_and_single_precision(prior, reference):
    x = quantiles(reference, 12).reshape(3, 4)
    assert torch.equal(prior.log_prob(x)[1], prior.log_prob(x[1])) and prior.cdf(x).shape == (3, 4)
    assert prior.log_prob(x.float()).dtype == torch.float32 and prior.cdf(x.float()).dtype == torch.float32


@each
def test_it_whitens(prior, reference):
    "Standard normal before the data: there and back, the density from the slope, and gradients for a chain."
    whitening = Whitening([prior, Normal(0.0, 1.0), prior])
    z = torch.linspace(-5, 5, 100, dtype=torch.float64)[:, None].expand(-1, 3).clone().requires_grad_()
    x, slope = whitening(z)
    torch.testing.assert_close(whitening.inverse(x.detach()), z.detach(), rtol=1e-7, atol=1e-7)
    (gradient,) = torch.autograd.grad(x.sum(), z, retain_graph=True)
    torch.testing.assert_close(gradient, slope.detach(), rtol=1e-8, atol=1e-12)
    log_normal = -0.5 * z[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(prior.log_prob(x[:, 0]), log_normal - slope[:, 0].log(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(slope[:, 0], slope[:, 2], rtol=0, atol=0)
    single = Whitening([prior], torch.float32)(z[:, :1].detach().float())[0]
    scale = float(x[:, 0].detach().abs().max())
    assert (single[:, 0] - x[:, 0].detach()).abs().max() < 1e-4 * scale
