"""Uncertainty-aware training from events to the fitted likelihood, with every array shape checked by beartype."""

import math

import numpy as np
import pyhf
import pytest
import torch

from hepinf.infer.intervals import profile
from hepinf.infer.mle import fit
from hepinf.problems import blobs2d
from hepinf.summaries.fisher import expected_uncertainty, fisher_information, sigma_mu
from hepinf.summaries.histogram import GRADIENTS, histogram
from hepinf.summaries.losses import CrossEntropy, MDMMLoss, SigmaMuLoss, WithMultiplier
from hepinf.summaries.observable import Observable
from hepinf.summaries.readouts import ClassBins, SigmoidBins, hard_summary
from hepinf.summaries.simulation import Shift, Simulation
from hepinf.summaries.templates import WeightMatrix, binned_model
from hepinf.train.config import TrainConfig
from hepinf.train.loop import train
from hepinf.train.networks import MLP


@pytest.fixture(scope="module")
def learnt():
    "The score of the binary toy, learnt from 1e5 events per process."
    training = TrainConfig(epochs=4, progress=False)
    return Observable(["signal"], bins=8, training=training).fit(blobs2d.blob_simulation(blobs2d.BINARY, 100_000, 1))


def test_the_learnt_score_is_within_half_a_percent_of_the_best_eight_bins(learnt):
    best = blobs2d.exact_errors(blobs2d.BINARY, blobs2d.best_summary(blobs2d.BINARY, 8), 8, n=300)
    ours = blobs2d.exact_errors(blobs2d.BINARY, learnt, 8, n=300)
    limit = blobs2d.unbinned_limit(blobs2d.BINARY)
    assert float(limit.total) < float(best.total) <= float(ours.total) < 1.005 * float(best.total)


def test_training_on_sigma_beats_its_own_warm_up():
    "Within-bin gradient: 12 % are asked of the paper's settings, and reached here with 4e4 events in seconds."
    table = WeightMatrix.of(blobs2d.blob_simulation(blobs2d.BINARY, 40_000, 2), ["signal"])
    judge = WeightMatrix.of(blobs2d.blob_simulation(blobs2d.BINARY, 50_000, 3), ["signal"])
    network, readout = MLP((2, 100, 1), seed=0), SigmoidBins(8, "within-bin")
    common = dict(schedule="cosine", progress=False)
    train(
        CrossEntropy(table),
        [network],
        table.groups,
        TrainConfig(batch_size=table.batch_sizes(2000), epochs=3, lr=1e-2, **common),
    )
    before = float(blobs2d.exact_errors(blobs2d.BINARY, hard_summary(network, readout), 8, n=300).total)
    verdict = SigmaMuLoss(judge, readout)
    train(
        SigmaMuLoss(table, readout),
        [network],
        table.groups,
        TrainConfig(batch_size=table.batch_sizes(4000), epochs=6, lr=3e-3, optimiser="nadam", **common),
        validate=lambda net: verdict(net, judge.groups),
    )
    after = float(blobs2d.exact_errors(blobs2d.BINARY, hard_summary(network, readout), 8, n=300).total)
    assert after < 0.88 * before


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_every_gradient_lowers_sigma_when_followed(gradient):
    "A small step against the loss's gradient lowers the smooth version of the same loss."
    table = WeightMatrix.of(blobs2d.blob_simulation(blobs2d.BINARY, 20_000, 4), ["signal"])
    network = MLP((2, 30, 1), seed=1)
    train(CrossEntropy(table), [network], table.groups, TrainConfig(batch_size=2000, epochs=3, lr=1e-2, progress=False))
    smooth = SigmaMuLoss(table, SigmoidBins(8, "soft", bandwidth=0.03))
    before = float(smooth(network, table.groups).detach())
    loss = SigmaMuLoss(table, SigmoidBins(8, gradient))(network, table.groups)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    size = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    with torch.no_grad():
        for weight, g in zip(network.parameters(), gradients):
            weight -= 0.02 * g / size
    assert float(smooth(network, table.groups)) < before


def test_the_exported_workspace_gives_pyhf_the_same_sigma(learnt):
    model = learnt.model(blobs2d.blob_simulation(blobs2d.BINARY, 50_000, 5), mc="none")
    ours = float(expected_uncertainty(model, "mu_signal"))
    workspace = pyhf.Workspace(model.to_workspace(poi="mu_signal"))
    pyhf.set_backend("numpy")
    theirs = workspace.model(modifier_settings={"histosys": {"interpcode": "code0"}})
    data = torch.as_tensor(workspace.data(theirs), dtype=torch.float64)
    at = torch.as_tensor(theirs.config.suggested_init(), dtype=torch.float64)
    names, step = theirs.config.par_names, 1e-3

    def expected(point):
        return torch.as_tensor(theirs.expected_actualdata(point.tolist()), dtype=torch.float64)

    slopes = []
    for k in range(len(names)):
        shift = torch.zeros_like(at)
        shift[k] = step
        slopes.append((expected(at + shift) - expected(at - shift)) / (2 * step))
    rows, n = torch.stack(slopes), data[: theirs.config.nmaindata]
    prior = torch.tensor([0.0 if name == "mu_signal" else 1.0 for name in names], dtype=torch.float64)
    matrix = (rows / n) @ rows.mT + torch.diag(prior)
    poi = theirs.config.poi_index
    assert abs(float(torch.linalg.inv(matrix)[poi, poi].sqrt()) / ours - 1) < 1e-6


def test_profile_likelihood_of_the_templates_agrees_with_the_information(learnt):
    "Toys fitted with their nuisance: the spread of mu is sigma_mu, within the error of 600 toys."
    model = blobs2d.blob_model(blobs2d.BINARY, blobs2d.exact_counts(blobs2d.BINARY, learnt, 8, n=200))
    ours = float(expected_uncertainty(model, "mu_signal"))
    counts, auxdata = model.sample(model.nominal.repeat(600, 1), torch.Generator().manual_seed(1))
    fits = fit(model.at(counts, auxdata))
    spread = float(fits.theta[:, model.index("mu_signal")].std())
    assert bool(fits.converged.all()) and abs(spread / ours - 1) < 3 / math.sqrt(2 * 600)
    at = torch.tensor([1 - ours, 1 + ours], dtype=torch.float64)
    scan = profile(model.at(model.asimov()), "mu_signal", at)
    assert 0.7 < float(scan.scan.mean()) < 1.3  # -2 delta log L is 1 at one sigma, up to its asymmetry


def test_ninety_nuisances_by_weight_and_by_inverse():
    rng = np.random.default_rng(1)
    n, m = 3000, 90
    x = rng.normal(size=(n, 2)).astype("float32")
    labels = np.where(np.arange(n) % 3 == 0, "signal", "background")
    weights = rng.uniform(0.5, 1.5, n)
    effects = {f"np{j}": rng.normal(0, 0.05) * np.tanh(x @ rng.normal(size=2)) for j in range(m)}
    variations = {name: (weights * (1 - e), weights * (1 + e)) for name, e in effects.items()}
    simulation = Simulation.from_arrays(x, labels, weights, variations)

    def quarters(events):
        return (torch.sigmoid(events[:, 0]) * 6).long().clamp(0, 5)

    model = binned_model(simulation, quarters, 6, ["signal"], mc="none")
    table = WeightMatrix.of(simulation, ["signal"], dtype=torch.float64)
    (events, w) = table.groups["still"]
    counts = histogram(torch.sigmoid(events[:, 0, 0]), torch.linspace(0, 1, 7), w[:, 0])
    ours = sigma_mu(counts[:1], counts[1], counts[2:])
    full = torch.linalg.inv(fisher_information(model))
    assert abs(float(ours[0]) / float(full[model.index("mu_signal"), model.index("mu_signal")].sqrt()) - 1) < 1e-6


def test_the_constraint_holds_the_classes():
    "With a strong multiplier the cross-entropy stays where the warm-up left it; without the constraint it does not."
    table = WeightMatrix.of(blobs2d.blob_simulation(blobs2d.MULTICLASS, 10_000, 6), ["signal1", "signal2"])
    entropy, readout = CrossEntropy(table), ClassBins(4, 4)
    drift = {}
    for name, multiplier in (("free", None), ("held", 50.0)):
        network = MLP((2, 30, 4), seed=0)
        common = dict(batch_size=table.batch_sizes(2000), schedule="cosine", progress=False)
        train(entropy, [network], table.groups, TrainConfig(epochs=5, lr=1e-2, **common))
        with torch.no_grad():
            limit = float(entropy(network, table.groups))
        loss = SigmaMuLoss(table, readout)
        member = network if multiplier is None else WithMultiplier(network, multiplier)
        loss = loss if multiplier is None else MDMMLoss(loss, entropy, limit)
        train(loss, [member], table.groups, TrainConfig(epochs=4, lr=3e-3, optimiser="nadam", **common))
        with torch.no_grad():
            drift[name] = float(entropy(network, table.groups)) / limit - 1
    assert drift["held"] < 0.02 < drift["free"]


def test_mistakes_of_a_tired_user():
    x, labels = torch.rand(100, 2), ["s"] * 50 + ["b"] * 50
    for message, call in {
        "did you mean 's1'": lambda: Observable(["s11"]).fit(x, ["s1"] * 50 + ["b"] * 50),
        "a list of process names": lambda: Observable("s"),
        "'tes': a pair": lambda: Observable(["s"]).fit(x, labels, None, {"tes": x}),
        "'tes', up: events of shape (99, 2)": lambda: Observable(["s"]).fit(x, labels, None, {"tes": (x, x[:99])}),
        "100 in all": lambda: Observable(["s"]).fit(x, labels[:99]),
        "event 3": lambda: Observable(["s"]).fit(torch.where(torch.arange(100)[:, None] == 3, math.nan, x), labels),
    }.items():
        with pytest.raises(ValueError) as error:
            call()
        assert message in str(error.value)


def test_shift_that_drops_events_is_a_weight_variation_of_zero():
    "An event that leaves the selection: as a shifted data set and as a weight variation the templates are the same."
    x, labels = torch.rand(500, 1), ["s", "b"] * 250
    w = torch.ones(500, dtype=torch.float64)
    lost = torch.where(x[:, 0] > 0.9, 0.0, w)
    base = Simulation.from_arrays(x, labels, w)
    args = (base.events, base.labels, base.weights, base.processes)
    by_shift = Simulation(*args, shifts={"cut": (Shift(x), Shift(x, lost))})
    by_weight = Simulation(*args, weight_variations={"cut": (w, lost)})
    rule = lambda events: (events[:, 0] * 4).long().clamp(0, 3)  # noqa: E731
    sigmas = [
        expected_uncertainty(binned_model(s, rule, 4, ["s"], mc="none"), "mu_s").value for s in (by_shift, by_weight)
    ]
    assert abs(sigmas[0] - sigmas[1]) < 1e-12
