"""Coverage by toys: exact sums over Poisson counts, closed forms of errors that are too small, ensembles, mistakes."""

import math
import statistics

import pytest
import torch

import hepinf as hi
from hepinf.binned.experiments import Experiments
from hepinf.binned.simulated import Simulated
from hepinf.infer.coverage import coverage
from hepinf.infer.toy_study import run_study, study
from hepinf.workspaces.schema import example_workspace

Z = statistics.NormalDist().inv_cdf((1 + 0.683) / 2)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def counting(signal=10.0, background=5.0, weight=0.0, low=-20.0):
    "Events of a signal on a known background, whose template may be simulated."
    low = max(low, -background / signal + 1e-9)
    return hi.BinnedModel(
        [
            hi.Process("signal", t(signal), norm="mu"),
            hi.Process("background", t(background), mc_weight=weight),
        ],
        [hi.Parameter("mu", 1.0, (low, 50.0))],
    )


def close(band, expected, toys):
    "Whether a fraction of toys is the expected one, within four standard deviations."
    return abs(band.value - expected) < 4 * math.sqrt(expected * (1 - expected) / toys) + 1e-12


@pytest.mark.parametrize(("mu", "background"), [(1.0, 5.0), (0.3, 2.0), (2.5, 20.0)])
def test_a_counting_experiment_has_the_coverage_of_the_exact_sum(mu, background):
    toys, nu = 2000, 10 * mu + background
    found = coverage(counting(10.0, background), "mu", truth={"mu": mu}, toys=toys, seed=4)
    n = torch.arange(0.0, 200.0, dtype=torch.float64)
    probability = torch.distributions.Poisson(t(nu)).log_prob(n).exp()
    q = 2 * (torch.xlogy(n, n / nu) - n + nu)
    has_error = n > 0  # without events the fit ends at the bound: no parabolic error, and q of the bound
    for k, level in enumerate(found.levels):
        z = statistics.NormalDist().inv_cdf((1 + level) / 2)
        inside = has_error & ((n - nu).abs() <= z * n.sqrt())
        assert close(found.parabolic[k], float(probability[inside].sum() / probability[has_error].sum()), toys)
        assert close(found.profile[k], float(probability[q <= z**2].sum()), toys)
    assert abs(found.bias.pull(0.0)) < 4
    assert abs(found.scatter.value / (math.sqrt(nu) / 10) - 1) < 4 / math.sqrt(2 * toys)


def linear():
    "Large counts, a nuisance that is half degenerate with the signal, and a background with a counted rate."
    slope = hi.Variation(t(4900.0, 5000.0, 5100.0, 4950.0), t(5100.0, 5000.0, 4900.0, 5050.0), 0.5)
    return hi.BinnedModel(
        [
            hi.Process("signal", t(600.0, 300.0, 100.0, 300.0), norm="mu"),
            hi.Process("background", t(5000.0, 5000.0, 5000.0, 5000.0), norm="rate", variations={"slope": slope}),
        ],
        [
            hi.Parameter("mu", 1.0, (-20.0, 20.0)),
            hi.Parameter("rate", 1.0, (0.0, 5.0), hi.Poisson(2500.0)),
            hi.Parameter("slope", 0.0, (-10.0, 10.0), hi.Normal(0.0, 0.5)),
        ],
    )


@pytest.mark.parametrize("nuisances", ["auxiliary", "prior"])
@pytest.mark.parametrize("truth", [None, {"mu": 0.0, "slope": 0.4}])
def test_large_counts_are_covered_in_both_ensembles(nuisances, truth):
    toys = 1500
    found = coverage(linear(), "mu", truth=truth, toys=toys, nuisances=nuisances, seed=2)
    for k, level in enumerate(found.levels):
        assert close(found.parabolic[k], level, toys) and close(found.profile[k], level, toys)
    assert abs(found.bias.pull(0.0)) < 4 and abs(found.scatter_over_error.pull(1.0)) < 4
    assert found.ok and found.failed == found.one_sided == 0


def test_the_difference_of_truth_and_measurement_is_the_same_in_both_ensembles():
    "A constraint counts once: to draw the truth and then its measurement anew would be too wide by the root of 2."
    model = linear()
    for nuisances in ("auxiliary", "prior"):
        ensemble = Experiments(model.at(model.asimov()), model.nominal, nuisances, "fixed")
        toys, truth = ensemble.draw(20_000, torch.Generator().manual_seed(3))
        measured = toys.auxdata / t(2500.0, 1.0)
        difference = measured - truth[:, model.constrained]
        torch.testing.assert_close(difference.std(0), t(0.02, 0.5), rtol=0.03, atol=0.0)
        assert bool((difference.mean(0).abs() < 4 * t(0.02, 0.5) / math.sqrt(20_000)).all())
        assert bool((truth[:, 0] == 1).all())
        moving = truth[:, 1:] if nuisances == "prior" else measured
        assert bool((moving.std(0) > 0).all())


@pytest.mark.parametrize("weight", [0.3, 1.0, 3.0])
def test_a_template_that_is_taken_for_exact_covers_as_little_as_the_closed_form_says(weight):
    toys, background, total = 2000, 9000.0, 10_000.0
    model = counting(1000.0, background, weight)
    found = coverage(model, "mu", toys=toys, templates="independent", seed=1)
    ratio = math.sqrt(total / (total + weight * background))
    assert close(found.profile[0], math.erf(Z * ratio / math.sqrt(2)), toys)
    assert abs(found.scatter_over_error.value * ratio - 1) < 4 / math.sqrt(2 * toys)
    assert any("profile" in problem for problem in found.problems)


def test_noise_of_slopes_attenuates_and_the_nominal_point_hides_it():
    """A free slope D of 200 bins from samples of its own: the best value is A / (A + M) of the true one.

    A = sum D^2 / N is the information, M = sum var(D) / N what the noise adds to it; var(D) = w (up + down) / 4.
    """
    bins, events, weight = 200, 1000.0, 1.0
    change = 30.0 * (1 - 2 * (torch.arange(bins) % 2)).double()
    flat = torch.full((bins,), events, dtype=torch.float64)
    slope = hi.Variation(flat - change, flat + change, 1.0)
    model = hi.BinnedModel(
        [hi.Process("background", flat, variations={"slope": slope}, mc_weight=weight)],
        [hi.Parameter("slope", 0.0, (-20.0, 20.0))],
    )
    information, noise = bins * 30.0**2 / events, bins * weight * 2 * events / 4 / events
    seen = coverage(model, "slope", truth={"slope": 1.0}, toys=1000, templates="independent")
    assert abs(seen.bias.value + noise / (information + noise)) < 4 * seen.bias.error + 0.02
    hidden = coverage(model, "slope", toys=1000, templates="independent")
    assert abs(hidden.bias.pull(0.0)) < 4 and seen.profile[0].value < 0.1
    assert any("prior" in note for note in hidden.notes)
    proportional = coverage(model, "slope", truth={"slope": 1.0}, toys=1000, templates="proportional")
    assert abs(proportional.bias.value) < 4 * proportional.bias.error + 0.02


def simulated(form, weight=0.3):
    "A bump on a background with four nuisances of 10 %, whose templates, up and down, are simulations of their own."
    x = (torch.arange(20, dtype=torch.float64) + 0.5) / 20
    signal, flat = 300 * torch.softmax(-50 * (x - 0.5) ** 2, 0), torch.full((20,), 500.0, dtype=torch.float64)
    shapes = {f"shape{k}": 0.1 * torch.cos((k + 1) * math.pi * x) for k in range(4)}
    variations = {name: hi.Variation(flat * (1 - h), flat * (1 + h), 1.0) for name, h in shapes.items()}
    sides = {name: ((weight * v.down).sqrt(), (weight * v.up).sqrt()) for name, v in variations.items()}
    own = Simulated.independent((weight * flat).sqrt(), sides)
    return hi.BinnedModel(
        [
            hi.Process("signal", signal, "mu", mc=Simulated.independent((weight / 10 * signal).sqrt())),
            hi.Process("background", flat, variations=variations, mc=own),
        ],
        [hi.Parameter("mu", 1.0), *(hi.Parameter(name, 0.0, constraint=hi.Normal(0.0, 1.0)) for name in shapes)],
        mc=form,
    )


def test_only_the_full_form_covers_and_the_nominal_point_hides_it():
    """Specification of the forms of noise, 2000 toys: one standard deviation is 0.010 at 68.3 %, 0.005 at 95 %.

    Lite covers 0.55 to 0.60 in the ensemble of the prior and 0.68 to 0.70 at the nominal point; full 0.683 in both.
    """
    full, lite = (
        coverage(simulated(m), "mu", toys=2000, nuisances="prior", templates="redrawn") for m in ("full", "lite")
    )
    hidden = coverage(simulated("lite"), "mu", toys=2000, templates="redrawn")
    assert close(full.parabolic[0], 0.683, 2000) and close(full.profile[0], 0.683, 2000)
    assert abs(full.profile[1].value - 0.95) < 0.02 and full.failed == 0 and full.ok
    assert full.curvature[0].value < full.parabolic[0].value
    assert 0.52 < lite.profile[0].value < 0.62 and not lite.ok and lite.curvature == ()
    assert close(hidden.profile[0], 0.683, 2000)


def test_exact_templates_are_over_covered_by_a_fit_that_allows_for_noise():
    found = coverage(simulated("full", 1.0), "mu", toys=500, nuisances="prior")
    assert found.profile[0].low > 0.683 and any("redraw" in note for note in found.notes)


def test_mc_weight_means_what_the_word_says():
    "The variations of one weight fluctuate with their template, or by themselves: only then are slopes noisy."
    x = (torch.arange(20, dtype=torch.float64) + 0.5) / 20
    signal, flat = 300 * torch.softmax(-50 * (x - 0.5) ** 2, 0), torch.full((20,), 500.0, dtype=torch.float64)
    shapes = {f"shape{k}": 0.1 * torch.cos((k + 1) * math.pi * x) for k in range(4)}
    variations = {name: hi.Variation(flat * (1 - h), flat * (1 + h), 1.0) for name, h in shapes.items()}
    processes = [hi.Process("s", signal, "mu"), hi.Process("b", flat, variations=variations, mc_weight=1.0)]
    parameters = [hi.Parameter("mu", 1.0), *(hi.Parameter(n, 0.0, constraint=hi.Normal(0.0, 1.0)) for n in shapes)]
    lite = hi.BinnedModel(processes, parameters, mc="lite")
    same, own = (coverage(lite, "mu", nuisances="prior", templates=word) for word in ("proportional", "independent"))
    assert close(same.profile[0], 0.683, 1000) and own.profile[0].value < 0.55


def test_staterror_and_proportional_variations_are_ordinary_toys_to_first_order():
    model = hi.BinnedModel.from_workspace(example_workspace())
    fixed, redrawn = (coverage(model, toys=2000, templates=kind) for kind in ("fixed", "proportional"))
    pull = (fixed.scatter.value - redrawn.scatter.value) / math.hypot(fixed.scatter.error, redrawn.scatter.error)
    assert abs(pull) < 4
    assert abs(fixed.profile[0].value - redrawn.profile[0].value) < 4 * math.sqrt(2 * 0.683 * 0.317 / 2000)
    assert abs(redrawn.error / fixed.error - 1) < 0.02


def test_a_signal_at_its_bound_is_one_sided_and_said():
    "At mu = 0 half of the toys end at the bound: the profile contains the truth, there is no parabolic error."
    toys = 1000
    found = coverage(counting(100.0, 10_000.0, low=0.0), "mu", truth={"mu": 0.0}, toys=toys)
    assert abs(found.one_sided / toys - 0.5) < 4 * 0.5 / math.sqrt(toys)
    assert close(found.profile[0], 0.5 + 0.683 / 2, toys)
    assert any("at a bound" in problem for problem in found.problems)


def test_toys_do_not_depend_on_how_many_there_are():
    task = study(linear(), "mu", None, "prior", "fixed", 7)
    few, many = run_study(task, 30), run_study(task, 300)
    torch.testing.assert_close(few.q, many.q[:30], rtol=1e-6, atol=1e-8)
    assert torch.equal(few.truth, many.truth[:30])
    other = study(linear(), "mu", None, "prior", "fixed", 8)
    assert not torch.equal(run_study(other, 30).value, few.value)


def test_bounds_and_fixed_parameters_of_a_likelihood_are_used():
    model = linear()
    free = coverage(model, "mu", toys=250)
    held = coverage(model.at(model.asimov()).holding({"slope": 0.0, "rate": 1.0}), "mu", toys=250, nuisances="prior")
    variance = float((model.processes[0].template ** 2 / model.asimov()).sum())
    assert abs(held.error * math.sqrt(variance) - 1) < 0.05 and held.error < 0.9 * free.error
    assert abs(held.scatter_over_error.pull(1.0)) < 4


def test_the_result_says_what_was_simulated():
    found = coverage(hi.BinnedModel.from_workspace(example_workspace()), toys=20, nuisances="prior", levels=(0.9,))
    assert found.poi == "mu" and len(found.profile) == 1 and found.sample.q.shape == (20,)
    text = repr(found)
    assert "profile, 90.0%" in text and "True mu = 1" in text and "drawn from their constraint terms" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"poi": "mus"}, "did you mean 'mu'"),
        ({"truth": {"sloep": 1.0}}, "did you mean 'slope'"),
        ({"truth": {"mu": 21.0}}, "truth: 'mu' = 21 lies outside its bounds"),
        ({"truth": {"mu": -9.0}}, "truth: channel 'summary', bin 0: -"),
        ({"truth": [1.0, 2.0]}, "truth: one value for each of 3 parameters"),
        ({"toys": 0}, "toys: at least one"),
        ({"levels": (68.3,)}, "levels: between 0 and 1, not 68.3"),
        ({"nuisances": "priors"}, "did you mean 'prior'"),
        ({"templates": "redrawn"}, "does not say how many events were simulated"),
        ({"templates": "independant"}, "did you mean 'independent'"),
        ({"templates": "independent"}, "does not say how many events were simulated"),
    ],
)
def test_a_mistake_is_named(options, said):
    with pytest.raises(hi.HepinfError, match=said) as caught:
        coverage(linear(), **{"poi": "mu", "toys": 5, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        hi.BinnedModel.from_workspace(example_workspace()),
        hi.BinnedModel(
            [hi.Process("b", t(5.0), "mu", {"jes": hi.Variation(t(4.0), t(6.0), 1.0)}, mc_weight=1.0)],
            [hi.Parameter("mu", 1.0), hi.Parameter("jes", 0.0, constraint=hi.Normal(0.0, 1.0))],
        ),
    ],
)
def test_how_variations_were_simulated_has_no_default(model):
    with pytest.raises(hi.HepinfError, match="say how: 'proportional'.*or 'independent'"):
        coverage(model, "mu", toys=5, templates="redrawn")


def test_what_has_no_auxiliary_measurements_is_refused():
    parabola = hi.as_likelihood(lambda x: -(x**2).sum(-1), torch.zeros(1), names=["x"])
    with pytest.raises(hi.HepinfError, match="BinnedModel"):
        coverage(parabola, "x")
    with pytest.raises(hi.HepinfError, match="name one"):
        coverage(linear())
    with pytest.raises(hi.HepinfError, match="'mu' is fixed"):
        coverage(linear().at(linear().asimov()).holding("mu"), "mu")


def test_a_toy_that_cannot_be_fitted_is_counted_and_explained():
    "A bin whose background comes from half a simulated event is empty in most toys, and the signal does not reach it."
    processes = [
        hi.Process("signal", t(20.0, 0.0), "mu"),
        hi.Process("background", t(20.0, 4.0), mc_weight=2.0),
    ]
    model = hi.BinnedModel(processes, [hi.Parameter("mu", 1.0, (-0.9, 20.0))])
    toys = 1000
    found = coverage(model, "mu", toys=toys, templates="proportional")
    lost = math.exp(-2.0) * (1 - math.exp(-4.0))  # no simulated event, and events in the data
    assert abs(found.failed - toys * lost) < 4 * math.sqrt(toys * lost)
    first = int((~found.sample.fitted).int().argmax())
    start = (
        f"{found.failed} of {toys} toys could not be fitted and are left out; the first is number {first}: log L = -inf"
    )
    assert found.problems[0].startswith(start)
