"""INFERNO from events to the exported workspace, with every array shape checked by beartype (see conftest)."""

import math

import peers
import pyhf
import pytest
import torch

from hepinf.binned.model import BinnedModel
from hepinf.binned.processes import Parameter, Process, Variation
from hepinf.infer.mle import fit
from hepinf.problems import mixture3d as mixture
from hepinf.stats.priors import Normal
from hepinf.stats.toys import fraction_covered, pull_summary
from hepinf.summaries.fisher import expected_uncertainty, fisher_information, profiled_variance
from hepinf.summaries.losses import InfernoLoss, paired_response, tangent_response
from hepinf.summaries.observable import Observable
from hepinf.summaries.quantisation import lloyd_max
from hepinf.summaries.score import efficient_directions
from hepinf.summaries.simulation import Simulation
from hepinf.train.config import TrainConfig
from hepinf.train.loop import train
from hepinf.train.networks import MLP

BENCHMARKS = list(enumerate(mixture.BENCHMARKS))


def events(number, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {"signal": mixture.sample_signal(number, rng), "background": mixture.sample_background(number, rng)}


def loss_of(benchmark, **options):
    response = tangent_response(lambda x: mixture.shift_tangents(x, benchmark.shapes)) if benchmark.shapes else None
    return InfernoLoss(
        50, 1000, benchmark.prior, background_floats="b" in benchmark.floating, response=response, **options
    )


def classifier_bins(x):
    f_s, f_b = mixture.signal_density(x.double()), mixture.background_density(x.double())
    return (10 * f_s / (f_s + f_b).clamp_min(1e-300)).long().clamp(0, 9)


@pytest.mark.parametrize("k, benchmark", BENCHMARKS)
def test_soft_bins_become_the_hard_bins_of_the_table(k, benchmark):
    "Paired shifts with the table's steps, at small temperature, are the table's own definition of the information."
    network = MLP((3, 30, 10), seed=3).double()
    sample = {name: x.double() for name, x in events(50_000).items()}
    steps = {name: mixture.STEP[name] for name in benchmark.shapes}
    response = paired_response(lambda x: mixture.shift_pairs(x, steps), tuple(steps.values())) if steps else None
    loss = InfernoLoss(50.0, 1000.0, benchmark.prior, background_floats="b" in benchmark.floating, response=response)
    with torch.no_grad():
        matrix = loss.information(*loss.templates(network, **sample, temperature=1e-4))
        soft = profiled_variance(matrix, "s", names=benchmark.floating).sqrt()
    hard = mixture.templates_from_events(lambda x: network(x).argmax(-1), **sample).sigma(benchmark)
    assert hard.ok and abs(float(soft) / float(hard) - 1) < 2e-3


@pytest.mark.parametrize("k, benchmark", BENCHMARKS)
def test_order_of_the_truth_rows(k, benchmark):
    "Unbinned limit < bound <= best ten bins < optimal classifier, and the best partition is stable in the grid."
    limit = benchmark.sigma(mixture.unbinned_information(60))
    best, templates = mixture.best_bins(benchmark, 60)
    finer, _ = mixture.best_bins(benchmark, 90)
    assert limit < best.bound <= best["s"]
    assert best["s"] < mixture.classifier_templates(300).sigma(benchmark).value
    assert abs(best["s"] - finer["s"]) < 0.02
    assert best["s"] - best.bound < 0.02  # proved optimal to 0.02 events


def test_one_learnt_score_is_near_the_best_ten_bins_of_every_benchmark():
    "No histogram in the training and no benchmark either: those enter through the direction and the cuts."
    sample, units = events(100_000, seed=4), torch.tensor([50.0, 100.0, 0.2, 0.5]).double()  # of s, b, r, lambda
    order = ("s", "b", *mixture.STEP)
    background = torch.arange(200_000) >= 100_000
    weights = torch.where(background, 1000.0, 50.0).double() / 100_000
    x = torch.cat([sample["signal"], sample["background"]])
    variations = {"b": (weights * (1 - 0.1 * background), weights * (1 + 0.1 * background))}
    for name, pair in zip(mixture.STEP, mixture.shift_pairs(sample["background"], mixture.STEP)):
        variations[name] = tuple(torch.cat([sample["signal"], moved]) for moved in pair)
    labels = ["background" if b else "signal" for b in background.tolist()]
    simulated = Simulation.from_arrays(x, labels, weights, variations)
    training = TrainConfig(epochs=4, lr=0.02, progress=False)
    observable = Observable(["signal"], training=training, seed=1).fit(simulated)
    assert ("s", *observable.nuisances) == order

    points, volumes = mixture.quadrature(60, mirror=False)
    on_events, on_points = (observable.ratios(part).double() for part in (simulated.events, points))
    learnt = observable.information - torch.diag(observable.prior)
    for benchmark in mixture.BENCHMARKS:
        at = [order.index(name) for name in benchmark.floating]
        information = learnt[at][:, at] + torch.diag(benchmark.prior * units[at] ** 2)
        u = efficient_directions(information, ["s"], names=benchmark.floating)[:, 0]
        edges = lloyd_max(on_events[:, at] @ u, weights, 10)
        index = torch.bucketize(on_points[:, at] @ u, edges)
        excess = (
            mixture.templates_from_points(index, points, volumes).sigma(benchmark).value
            / mixture.best_bins(benchmark, 60)[0]["s"]
            - 1
        )
        # 0.02 to 0.16 % for three initialisations; grids of 60 points and the steps of the shifts are good to 0.05 %
        assert -0.001 < excess < 0.005


def test_ensemble_takes_the_same_steps_in_turn_and_stacked():
    sample, benchmark = events(2000), mixture.BENCHMARKS[2]
    steps = {"r": 1.0, "lambda": 1.2}
    response = paired_response(lambda x: mixture.shift_pairs(x, steps), tuple(steps.values()))
    loss = InfernoLoss(50.0, 1000.0, benchmark.prior, response=response, temperature=lambda f: 1.0)
    losses = {}
    for vectorise in (False, True):
        networks = [MLP((3, 20, 10), seed=k) for k in range(3)]
        history = train(
            loss, networks, sample, TrainConfig(batch_size=500, epochs=2, lr=1e-3, vectorise=vectorise, progress=False)
        )
        losses[vectorise] = torch.tensor(history.loss)
    torch.testing.assert_close(losses[False], losses[True], rtol=1e-4, atol=1e-4)
    assert len(set(losses[True][0].tolist())) == 3  # different initialisations


def dead_network(hidden=10):
    "All events in the first bin: one live bin for three free parameters has no information."
    network = MLP((3, hidden, 10), seed=0)
    with torch.no_grad():
        network.layers[-1].weight.zero_()
        network.layers[-1].bias.copy_(torch.tensor([1e4] + [0.0] * 9))
    return network


@pytest.mark.parametrize("vectorise", [False, True])
def test_a_dead_member_is_reported_and_disturbs_no_other(vectorise):
    sample, loss = events(1000), loss_of(mixture.BENCHMARKS[2])
    dead, live, alone = dead_network(), MLP((3, 10, 10), seed=1), MLP((3, 10, 10), seed=1)
    options = dict(batch_size=200, epochs=2, lr=1e-3, progress=False)
    history = train(loss, [dead, live], sample, TrainConfig(vectorise=vectorise, **options))
    problems = "; ".join(history.problems)
    assert "member 0: the loss was never finite" in problems and "member 1" not in problems
    train(loss, [alone], sample, TrainConfig(**options), seeds=[1])
    for a, b in zip(live.parameters(), alone.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for a, b in zip(dead.parameters(), dead_network().parameters()):
        torch.testing.assert_close(a, b)
    with pytest.raises(RuntimeError, match="never finite"):
        train(loss, [dead_network()], sample, TrainConfig(**options))


def test_nan_events_are_refused_with_their_index():
    sample = events(1000)
    sample["background"][123, 1] = math.nan
    with pytest.raises(ValueError, match="background.*event 123"):
        train(
            loss_of(mixture.BENCHMARKS[0]), [MLP((3, 10, 10))], sample, TrainConfig(batch_size=100, epochs=1, lr=1e-3)
        )
    with pytest.raises(ValueError, match="background.*event 123"):
        mixture.templates_from_events(classifier_bins, **sample)


def test_singular_information_is_infinite_with_a_reason():
    one_bin = mixture.templates_from_events(lambda x: torch.zeros(len(x), dtype=torch.int64), **events(1000))
    sigma = one_bin.sigma(mixture.BENCHMARKS[2])
    assert sigma.value == math.inf and "1 live bins for 3" in sigma.problems[0] and not sigma.ok
    sigma = one_bin.sigma(mixture.BENCHMARKS[0])
    assert abs(sigma.value - math.sqrt(1050)) < 1e-9 and sigma.ok


@pytest.mark.parametrize("k, benchmark", BENCHMARKS)
def test_exported_workspace_has_our_uncertainty_in_pyhf(k, benchmark):
    model = mixture.templates_from_events(classifier_bins, **events(100_000)).model(benchmark)
    ours = float(expected_uncertainty(model, "s"))
    workspace = pyhf.Workspace(model.to_workspace(poi="s"))
    theirs = workspace.model()
    at = torch.tensor(theirs.config.suggested_init(), dtype=torch.float64)
    hessian = -peers.hessian(theirs, at, workspace.data(theirs))
    sigma = torch.linalg.inv(hessian)[theirs.config.poi_index, theirs.config.poi_index].sqrt()
    assert abs(float(sigma) / ours - 1) < 0.01


@pytest.mark.parametrize("k, benchmark", BENCHMARKS[1:])
def test_information_is_the_curvature_of_the_likelihood(k, benchmark):
    model = mixture.classifier_templates(200).model(benchmark, "quadratic")
    counts = model.asimov()
    hessian = torch.autograd.functional.hessian(lambda t: -model.log_prob(t, counts), model.nominal)
    torch.testing.assert_close(
        fisher_information(model), hessian, rtol=1e-9, atol=1e-9 * float(hessian.diagonal().max())
    )


def test_toys_cover_and_pull_with_constraints():
    "Benchmark 4, all kinds of parameter: 68 % intervals and pulls are right within 4 standard errors."
    model = mixture.classifier_templates(200).model(mixture.BENCHMARKS[4])
    truth = model.nominal.repeat(2000, 1)
    counts, auxiliary = model.sample(truth, torch.Generator().manual_seed(11))

    free = fit(model.at(counts, auxiliary))
    fixed = fit(model.at(counts, auxiliary), fixed=["s"])
    assert free.ok and fixed.ok, free.problems + fixed.problems
    fraction = fraction_covered(2 * (free.log_prob - fixed.log_prob) <= 1).value
    assert abs(fraction - 0.6827) < 4 * math.sqrt(0.6827 * 0.3173 / 2000)
    summary = pull_summary((free.theta[:, 0] - 50) / free.covariance[:, 0, 0].sqrt())
    assert abs(summary.mean.value) < 4 * summary.mean.error + 0.05  # Poisson skewness: about 1 / (6 sqrt(n)) of a width
    assert abs(summary.sd.value - 1) < 4 * summary.sd.error


def test_fit_agrees_with_pyhf():
    "The fitted signal rate of a fluctuated data set, ours and pyhf's (scipy), constrained shape and rate."
    t = torch.tensor
    background, signal = t([120.0, 80.0, 40.0, 20.0]).double(), t([2.0, 6.0, 12.0, 10.0]).double()
    shape = Variation(background * t([0.95, 1.0, 1.02, 1.1]), background * t([1.05, 1.0, 0.98, 0.9]), 1.0)
    model = BinnedModel(
        [Process("signal", signal, norm="mu"), Process("background", background, variations={"tilt": shape})],
        [Parameter("mu", 1.0, (0.0, 10.0)), Parameter("tilt", 0.0, constraint=Normal(0.0, 1.0))],
    )
    counts, _ = model.sample(model.point(mu=1.5, tilt=0.3), torch.Generator().manual_seed(3))
    ours = fit(model.at(counts))
    pyhf.set_backend("numpy")
    workspace = pyhf.Workspace(model.to_workspace(poi="mu", counts=counts))
    theirs = workspace.model()
    best = pyhf.infer.mle.fit(workspace.data(theirs), theirs)
    assert ours.converged
    assert abs(float(ours["mu"]) - best[theirs.config.poi_index]) < 1e-3
