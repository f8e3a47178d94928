"""Arrays where tensors are taken, and importance weights of which a few decide."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import hepinf as hi
from hepinf.core.errors import InputError
from hepinf.stats import chains, importance, toys
from hepinf.stats.whitening import Whitening

FORMS = {
    "float64": lambda x: np.asarray(x, np.float64),
    "float32": lambda x: np.asarray(x, np.float32),
    "big-endian": lambda x: np.asarray(x, ">f8"),
    "reversed": lambda x: np.asarray(x, np.float64)[::-1].copy()[::-1],
    "list": lambda x: np.asarray(x).tolist(),
    "tuple": lambda x: tuple(np.asarray(x).tolist()),
}
PRIORS = {
    "Normal": (hi.Normal(1.0, 2.0), stats.norm(1.0, 2.0)),
    "Uniform": (hi.Uniform(0.0, 3.0), stats.uniform(0.0, 3.0)),
    "Gamma": (hi.Gamma(2.0, 0.5), stats.gamma(2.0, scale=0.5)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("prior, exact", PRIORS.values(), ids=PRIORS)
def test_priors_take_arrays(prior, exact, form):
    x, p = [0.5, 1.25, 2.5], [0.25, 0.5, 0.875]
    np.testing.assert_allclose(prior.log_prob(form(x)), exact.logpdf(x), rtol=1e-5)
    np.testing.assert_allclose(prior.cdf(form(x)), exact.cdf(x), rtol=1e-5)
    np.testing.assert_allclose(prior.icdf(form(p)), exact.ppf(p), rtol=1e-5)
    assert float(prior.log_prob(1)) == pytest.approx(exact.logpdf(1), rel=1e-12)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_weights_and_chains_take_arrays(form):
    rng = np.random.default_rng(1)
    log_w, x = 0.3 * rng.normal(size=500), rng.normal(size=(500, 2))
    w = np.exp(log_w) / np.exp(log_w).sum()
    assert importance.importance_ess(form(log_w)).value == pytest.approx(1 / (500 * (w**2).sum()), rel=1e-5)
    assert importance.log_evidence(form(log_w)).value == pytest.approx(math.log(np.exp(log_w).mean()), abs=1e-5)
    np.testing.assert_allclose(importance.weighted_moments(form(x), form(log_w))[0], w @ x, rtol=1e-4, atol=1e-6)
    draws = rng.normal(size=(200, 4))
    assert chains.rhat(form(draws)) == pytest.approx(chains.rhat(torch.as_tensor(draws)), rel=1e-4)
    assert toys.fraction_covered(np.array([True, False, True, True])).value == 0.75
    assert toys.median_band(form([3.0, 1.0, 2.0])).value == 2.0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: importance.log_evidence("a"), "log_w: numbers are needed"),
        (lambda: importance.log_evidence(None), "log_w: .* not None"),
        (lambda: importance.log_evidence(np.zeros((5, 2))), r"log_w: the shape \(n\) is needed, not \(5, 2\)"),
        (lambda: importance.weighted_moments(np.zeros(5), np.zeros(5)), "a single column is x"),
        (lambda: importance.weighted_moments(np.zeros((5, 2)), np.zeros(4)), "log_w and x do not match: 4 and 5"),
        (lambda: hi.Normal(0, 1).log_prob(["1", "2"]), "value: numbers are needed, but element 0 is '1'"),
        (lambda: hi.Normal(0, 1).log_prob([[1.0], [1.0, 2.0]]), "rows of one length"),
        (lambda: Whitening([hi.Normal(0, 1)])([[1.0, 2.0]]), "one column for each of 1 priors"),
    ],
)
def test_what_is_no_table_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("n, above", [(2000, 50.0), (2000, 1000.0), (20_000, 10.0), (400, 8.0)])
def test_a_weight_far_above_all_is_not_trusted(n, above):
    log_w = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_w[3] = above
    w = (log_w - log_w.max()).exp()
    effective = float(w.sum() ** 2 / w.square().sum())
    for estimate in (importance.importance_ess(log_w), importance.log_evidence(log_w), importance.kl_reverse(log_w)):
        assert estimate.effective == pytest.approx(effective) and effective < 10
        assert not estimate.trusted and estimate.problems
    divergence = importance.kl_forward(torch.zeros(100), importance.log_evidence(log_w))
    assert not divergence.trusted


def test_nine_large_weights_are_not_trusted_and_a_hundred_are():
    for large, trusted in ((1, False), (9, False), (100, True)):
        log_w = torch.zeros(2000)
        log_w[:large] = 6.0
        estimate = importance.importance_ess(log_w)
        assert estimate.trusted is trusted or estimate.khat >= 0.5, (large, estimate.problems)


@pytest.mark.parametrize("k", [0.1, 0.2, 0.3])
def test_tails_with_a_variance_are_trusted(k):
    "Exact Pareto weights: the index is within its error of k, (1 + k) / sqrt(tail), far enough below 1/2."
    u = torch.rand(4000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    estimate = importance.log_evidence(-k * u.log())
    assert estimate.trusted, estimate.problems
    assert abs(estimate.value - math.log(1 / (1 - k))) < 4 * estimate.error


def test_few_or_heavy_weights_are_not_trusted():
    assert "do not show their tail" in importance.log_evidence(torch.zeros(20)).problems[0]
    u = torch.rand(4000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert "their variance is infinite" in importance.log_evidence(-0.8 * u.log()).problems[0]
    assert importance.log_evidence(torch.zeros(2000)).trusted
