"Templates from finite simulations: closed forms, an independent program, and the coverage that errors promise."

import math
import warnings

import peers
import pyhf
import pytest
import torch

import hepinf as hi
from hepinf.binned.ensemble import redrawn
from hepinf.binned.simulated import Simulated
from hepinf.binned.storage import pack_model, unpack_model
from hepinf.core.errors import InputError
from hepinf.core.likelihood import CallableLikelihood
from hepinf.problems.simulated_toys import ShapesToy, StepToy

D = torch.float64


def t(*values):
    return torch.tensor(values, dtype=D)


def small(mc=None, interpolation="linear"):
    "A signal on a background with a variation whose templates were simulated for themselves."
    errors = (t(60.0, 40.0, 30.0) * 0.8).sqrt()
    background = hi.Process(
        "background",
        t(60.0, 40.0, 30.0),
        variations={"jes": hi.Variation(t(54.0, 42.0, 28.0), t(67.0, 38.0, 33.0), 1.0)},
        mc=Simulated.independent(errors, {"jes": (errors, errors * 1.1)}),
    )
    signal = hi.Process("signal", t(3.0, 9.0, 14.0), "mu", mc=Simulated.independent(t(0.3, 0.6, 0.8)))
    parameters = [hi.Parameter("mu", 1.0, (-10.0, 10.0)), hi.Parameter("jes", 0.0, constraint=hi.Normal(0.0, 1.0))]
    return hi.BinnedModel([signal, background], parameters, interpolation=interpolation, mc=mc)


COUNTS = t(71.0, 47.0, 51.0)


# closed forms


@pytest.mark.parametrize("interpolation", ["linear", "quadratic"])
def test_profile_over_all_templates_is_the_closed_form(interpolation):
    """log L with every template value a free parameter (brute force) has the maximum, and the curvature in what is
    left, of the closed form."""
    model = small("full", interpolation)
    exact = hi.fit(model.at(COUNTS))
    signal, background = model.processes
    sources = torch.cat(
        [signal.template, background.template, background.variations["jes"].down, background.variations["jes"].up]
    )
    sd = torch.cat([p.mc.covariance.diagonal(dim1=1, dim2=2).T.flatten().sqrt() for p in (signal, background)])

    def log_l(x):
        mu, jes, true = x[..., :1], x[..., 1:2], sources + sd * x[..., 2:]
        s, b, down, up = true.unflatten(-1, (4, 3)).unbind(-2)
        even = torch.zeros_like(jes)
        if interpolation == "quadratic":
            even = torch.where(jes.abs() < 1, jes**2, 2 * jes.abs() - 1)
        nu = mu * s + b + jes * (up - down) / 2 + even * ((up + down) / 2 - b)
        poisson = torch.xlogy(COUNTS, nu) - nu - torch.lgamma(COUNTS + 1)
        normal = -0.5 * jes**2 - 0.5 * math.log(2 * math.pi)
        return poisson.sum(-1) + normal[..., 0] - 0.5 * (x[..., 2:] ** 2).sum(-1)

    names = ["mu", "jes", *(f"t{k}" for k in range(12))]
    free = hi.fit(CallableLikelihood(log_l, torch.cat([exact.theta, torch.zeros(12, dtype=D)]), names))
    assert abs(float(free.log_prob - exact.log_prob)) < 1e-8
    torch.testing.assert_close(free.theta[:2], exact.theta, atol=1e-5, rtol=0)
    # profiling leaves the inverse of the inverse Hessian's block: the curvature errors agree
    torch.testing.assert_close(free.error[:2], exact.curvature_error, rtol=1e-5, atol=0)


@pytest.mark.parametrize("form", ["lite", "full"])
@pytest.mark.parametrize("interpolation", ["linear", "quadratic"])
def test_derivatives_equal_autograd(form, interpolation):
    model = small(form, interpolation)
    likelihood = model.at(t([71.0, 47.0, 51.0], [55.0, 0.0, 20.0]))
    theta = t([1.4, 0.6], [-0.3, -1.7])
    _, gradient, hessian = model.derivatives(theta, likelihood.counts)
    for k in range(2):
        one = lambda x, k=k: model.log_prob(x, likelihood.counts[k])  # noqa: E731
        torch.testing.assert_close(gradient[k], torch.autograd.functional.jacobian(one, theta[k]), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(hessian[k], torch.autograd.functional.hessian(one, theta[k]), rtol=1e-9, atol=1e-9)


def test_lite_equals_explicit_factors_and_pyhf():
    "The light form against its workspace: factors of their own in hepinf, and in pyhf."
    model = small("lite")
    workspace = model.to_workspace("mu", COUNTS)
    explicit = hi.BinnedModel.from_workspace(workspace)
    assert len(explicit.parameters) == len(model.parameters) + 3
    lite, wide = hi.fit(model.at(COUNTS)), hi.fit(explicit)
    for name in ("mu", "jes"):
        assert abs(float(lite[name] - wide[name])) < 1e-6
        assert abs(lite.estimate(name).error / wide.estimate(name).error - 1) < 1e-6
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-6, strategy=2))
    other = pyhf.Workspace(workspace)
    pdf = other.model()
    best, k = torch.tensor(pyhf.infer.mle.fit(other.data(pdf), pdf)), pdf.config.poi_index
    error = (-peers.hessian(pdf, best, other.data(pdf))).inverse()[k, k].sqrt()
    assert abs(float(best[k] - lite["mu"])) < 1e-4
    assert abs(float(error) / lite.estimate("mu").error - 1) < 1e-4


def test_many_simulated_events_leave_nothing():
    "With weights a million times smaller, all forms are the exact templates."
    processes = [
        hi.Process(p.name, p.template, p.norm, p.variations, mc=Simulated(1e-12 * p.mc.covariance, p.mc.variations))
        for p in small().processes
    ]
    fits = [hi.fit(hi.BinnedModel(processes, small().parameters, mc=mc).at(COUNTS)) for mc in ("none", "lite", "full")]
    for fit in fits[1:]:
        torch.testing.assert_close(fit.theta, fits[0].theta, atol=1e-7, rtol=0)
        torch.testing.assert_close(fit.error, fits[0].error, rtol=1e-6, atol=0)


def test_a_formula_as_a_norm_has_the_same_noise():
    "mu written as a formula of itself."
    plain = small("full")
    signal, background = plain.processes
    formula = hi.Process("signal", signal.template, "mu * 1.0", mc=signal.mc)
    other = hi.BinnedModel([formula, background], plain.parameters)
    one, two = hi.fit(plain.at(COUNTS)), hi.fit(other.at(COUNTS))
    torch.testing.assert_close(one.theta, two.theta)
    torch.testing.assert_close(one.covariance, two.covariance)
    torch.testing.assert_close(
        plain.expected_information(plain.nominal).covariance, other.expected_information(other.nominal).covariance
    )


def test_a_batch_is_its_data_sets():
    model = small()
    counts = model.sample(model.nominal.expand(5, -1), seed=1)[0]
    whole = hi.fit(model.at(counts))
    for k in range(5):
        one = hi.fit(model.at(counts[k]))
        torch.testing.assert_close(one.theta, whole.theta[k], atol=1e-6, rtol=0)
        torch.testing.assert_close(one.covariance, whole.covariance[k], rtol=1e-4, atol=1e-8)


# results


def test_interval_uses_the_scaled_threshold_and_says_so():
    "At the ends of the interval 2 Delta log L is the square of the ratio of the errors."
    model = small()
    likelihood = model.at(COUNTS)
    fit, interval = hi.fit(likelihood), hi.interval(model.at(COUNTS), "mu")
    assert any("noise of the simulated templates" in note for note in interval.notes)
    ends = torch.stack([interval.low, interval.high])
    scan = hi.profile(likelihood, "mu", ends).scan
    torch.testing.assert_close(scan, fit.inflation("mu") ** 2 * torch.ones(2, dtype=D), rtol=1e-4, atol=0)
    assert not hi.interval(small("lite").at(COUNTS), "mu").notes


def test_contours_use_the_mean_eigenvalue():
    "The likelihood ratio of two parameters has the mean 2 times the mean eigenvalue of one covariance over the other."
    likelihood = small().at(COUNTS)
    fit = hi.fit(likelihood)
    found = hi.contour(likelihood, ("mu", "jes"), points=5, fit=fit)
    assert any("'mu', 'jes'" in note for note in found.notes)
    curvature = -likelihood.quadratic(fit.theta[None], torch.arange(2)).curvature[0]
    ratio = float((fit.covariance @ -curvature).diagonal().sum() / 2)
    held = hi.fit(likelihood, fixed={"mu": float(found.values[0][1]), "jes": float(found.values[1][3])})
    assert abs(float(found.scan[1, 3]) - 2 * float(fit.log_prob - held.log_prob) / abs(ratio)) < 1e-6


def test_components_add_up_with_the_simulation_among_them():
    "Quadrature to rounding; without noise the simulation has no part."
    likelihood = small().at(COUNTS)
    fit, parts = hi.fit(likelihood), hi.components(likelihood, "mu")
    assert abs(float(parts.total) / fit.estimate("mu").error - 1) < 1e-10
    total = parts.data**2 + parts.constraints**2 + parts.simulation**2
    assert abs(float(total) / float(parts.total) ** 2 - 1) < 1e-10
    exact = hi.components(small("none").at(COUNTS), "mu")
    assert exact.simulation is None and float(parts.simulation) > 0.3 * float(exact.data)
    asimov = small().at(small().asimov())
    expected = hi.components(asimov.asimov(small().nominal), "mu")
    wanted = small().expected_information(small().nominal).covariance[0, 0].sqrt()
    torch.testing.assert_close(expected.total, wanted)


def test_limits_and_tests_say_so():
    likelihood = small().at(COUNTS)
    for result in (
        hi.upper_limit(likelihood, poi="mu"),
        hi.hypotest(likelihood, 1.0, poi="mu"),
        hi.discovery(likelihood, poi="mu"),
    ):
        assert any("noise of the simulated templates" in note for note in result.notes), result
    wide, narrow = (hi.upper_limit(small(mc).at(COUNTS), poi="mu") for mc in ("full", "none"))
    assert float(wide.observed) > float(narrow.observed) and float(wide.expected[2]) > float(narrow.expected[2])


def test_expected_error_is_that_of_toys():
    "The expected error against the scatter over simulations and data, at the nominal point."
    model = small()
    rows, generator = 4000, torch.Generator().manual_seed(5)
    ensemble = redrawn(model, rows, generator)
    theta = model.nominal.expand(rows, -1)
    truth = small("none").expected(theta)
    auxdata = torch.randn(rows, 1, generator=generator, dtype=D)
    fit = hi.fit(ensemble.at(torch.poisson(truth, generator=generator), auxdata))
    assert bool(fit.converged.all())
    scatter = float(fit["mu"].std())
    # 1.1 % of statistics (1 / sqrt(2 rows)), and the second order of a relative noise of 10 % in a bin
    assert abs(float(hi.expected_uncertainty(model, "mu")) / scatter - 1) < 0.05


# coverage


def step_toy(form, rows=2000, seed=2):
    """Residuals of the difference of two strengths over the root of 2, its errors, and the fraction of fits that
    converged; the toy of a published fitter's tests."""
    experiments = StepToy().experiments(rows, seed)
    fit = hi.fit(experiments.at(form))
    direction = t(1.0, -1.0) / math.sqrt(2)
    good = fit.converged & torch.isfinite(fit.covariance).all((1, 2))
    error = torch.einsum("i,nij,j->n", direction, fit.covariance, direction).sqrt()
    return ((fit.theta - experiments.truth) @ direction)[good], error[good], float(good.double().mean())


def test_published_toy_of_the_fitter():
    """The light form halves the difference and covers almost never; all templates profiled, with the sandwich, it does
    not. Tolerances: 2000 toys, 0.011 on a coverage near 0.68, 0.010 on the median."""
    residual, error, converged = step_toy("full")
    assert converged == 1.0
    assert abs(float(residual.median())) < 0.03
    assert 0.66 < float((residual.abs() < error).double().mean()) < 0.72
    residual, error, _ = step_toy("lite")
    assert float(residual.median()) < -0.2 and float((residual.abs() < error).double().mean()) < 0.15


def weighted_toy(form, nuisances, weight, rows=3000, seed=1):
    """A bump on a background with four shape nuisances, whose templates, up and down, are simulations of their own
    with events of this weight. Every toy has its own."""
    likelihood = ShapesToy(weight=weight).experiments(rows, nuisances, seed).at(form)
    fit = hi.fit(likelihood)
    held = hi.fit(likelihood.starting_at(fit.theta), fixed={"mu": torch.ones(rows, dtype=D)})
    q = 2 * (fit.log_prob - held.log_prob) / fit.inflation("mu") ** 2
    assert float(fit.converged.double().mean()) > 0.998
    pull = (fit["mu"] - 1).abs() / fit.error[:, 0]
    return {
        "symmetric": float((pull < 1).double().mean()),
        "profile": float((q < 1).double().mean()),
        "profile95": float((q < 3.841).double().mean()),
        "bias": float(fit["mu"].mean() - 1),
        "ratio": float(fit.error[:, 0].median() / fit["mu"].std()),
    }


@pytest.mark.parametrize("weight", [0.1, 0.3])
def test_coverage_with_independent_variations(weight):
    "3000 toys: 0.0085 on a coverage near 0.683, 0.004 near 0.95. The light form covers too little by many of them."
    full, lite = (weighted_toy(form, "prior", weight) for form in ("full", "lite"))
    assert 0.66 < full["symmetric"] < 0.72 and 0.66 < full["profile"] < 0.72
    assert abs(full["profile95"] - 0.95) < 0.02 and abs(full["bias"]) < 0.03
    assert lite["symmetric"] < full["symmetric"] - 0.03 and lite["ratio"] < 0.95 < full["ratio"]


def test_coverage_at_nominal_nuisances_hides_the_bias():
    "There the light form looks perfect."
    lite = weighted_toy("lite", "nominal", 0.3)
    assert abs(lite["symmetric"] - 0.683) < 0.03


# in and out


def test_export_says_what_is_lost():
    model = small("full")
    with pytest.warns(UserWarning, match="a factor 1.0[0-9]+ of the expected error of 'mu'"):
        workspace = model.to_workspace("mu")
    kinds = [m["type"] for s in workspace["channels"][0]["samples"] for m in s["modifiers"]]
    assert kinds.count("staterror") == 2 and "shapesys" not in kinds  # more than ten effective events everywhere
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small("none").to_workspace("mu")


def test_few_events_have_a_poisson_constraint_of_their_own():
    "The expected fit of the workspace, with shapesys in the bins of few events, by hepinf and pyhf."
    background = hi.Process("b", t(60.0, 4.0), mc=Simulated.independent(t(4.0, 2.0)))
    signal = hi.Process("s", t(3.0, 5.0), "mu", mc=Simulated.independent(t(0.1, 0.1)))
    model = hi.BinnedModel([signal, background], [hi.Parameter("mu", 1.0)], mc="lite")
    workspace = model.to_workspace("mu", t(66.0, 7.0))
    fit = hi.fit(hi.BinnedModel.from_workspace(workspace))
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-6, strategy=2))
    other = pyhf.Workspace(workspace)
    pdf = other.model()
    best = pyhf.infer.mle.fit(other.data(pdf), pdf)
    pyhf.set_backend("numpy")
    assert abs(float(fit["mu"]) - best[pdf.config.poi_index]) < 1e-4


@pytest.mark.parametrize("form", ["none", "lite", "full"])
def test_a_stored_model_keeps_its_noise(form):
    model = small(form)
    tensors, content = pack_model(model)
    again = unpack_model(tensors, content)
    assert again.mc == form
    torch.testing.assert_close(again.log_prob(model.nominal, COUNTS), model.log_prob(model.nominal, COUNTS))
    torch.testing.assert_close(again.mc_variance(model.nominal), model.mc_variance(model.nominal))


# mistakes


def _process(**changes):
    settings = {"template": t(5.0, 6.0), "norm": "mu", "mc": Simulated.independent(t(1.0, 1.0))} | changes
    return hi.BinnedModel([hi.Process("p", **settings)], [hi.Parameter("mu", 1.0)], mc="full")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Simulated(t([[1.0]], [[-1.0]])), "bin 1 has the negative eigenvalue -1"),
        (
            lambda: Simulated(torch.eye(3, dtype=D)[None].triu() + t([0.0, 1.0, 0.0])[:, None].mT, ("a",)),
            "bin 0 is not symmetric",
        ),
        (
            lambda: Simulated.independent(t(1.0, 2.0), {"a": (t(1.0), t(1.0))}),
            "errors of variation 'a', down: one number for",
        ),
        (lambda: _process(mc=[1.0, 1.0]), "process 'p', mc: not a list but Simulated.independent(errors)"),
        (lambda: Simulated.independent(t(1.0), {"a": [0.1]}), "errors of variation 'a': a pair (down, up) is needed"),
        (lambda: Simulated.independent(t(1.0, -2.0)), "errors: an error is not negative, as that of bin 1 is: -2"),
        (
            lambda: Simulated.proportional(t(1.0, 2.0), t(0.1, 0.1), {"a": hi.Variation(t(1.0), t(1.0), 1.0)}),
            "variation 'a', down: one number for each of the bins",
        ),
        (
            lambda: _process(mc=Simulated.independent(t(1.0))),
            "process 'p', mc: the covariance has 1 bins, the template 2",
        ),
        (lambda: _process(mc=None), "mc='full': no process says how well it was simulated"),
        (lambda: _process(mc_weight=0.1), "process 'p': mc and mc_weight say the same"),
        (lambda: small("ful"), "unknown mc 'ful'; did you mean 'full'?"),
        (lambda: small("none").expected_information(t(1.0, 0.0)), "takes its templates as exact"),
    ],
)
def test_mistakes_are_named(make, said):
    with pytest.raises(InputError) as error:
        make()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_variation_needs_to_say_how_it_was_simulated():
    variation = {"jes": hi.Variation(t(4.0, 7.0), t(6.0, 5.0), 1.0)}
    process = hi.Process("p", t(5.0, 6.0), "mu", variation, mc=Simulated.independent(t(1.0, 1.0)))
    parameters = [hi.Parameter("mu", 1.0), hi.Parameter("jes", 0.0, constraint=hi.Normal(0.0, 1.0))]
    with pytest.raises(InputError, match="says nothing of the variation 'jes': was it made from the same events"):
        hi.BinnedModel([process], parameters)


def test_errors_without_events_count():
    "An empty bin with an error, and a bin whose sum of weights is zero: their variance stays in the likelihood."
    process = hi.Process("p", t(5.0, 0.0), "mu", mc=Simulated.independent(t(1.0, 0.7)))
    other = hi.Process("q", t(20.0, 10.0), mc=Simulated.independent(t(0.0, 0.0)))
    model = hi.BinnedModel([process, other], [hi.Parameter("mu", 1.0)])
    torch.testing.assert_close(model.mc_variance(t(2.0)), t(4.0, 4 * 0.49))
    assert hi.fit(model.at(t(26.0, 11.0))).ok
