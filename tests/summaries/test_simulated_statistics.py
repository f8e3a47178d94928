"""What a finite simulation leaves uncertain: covariances against simulations of other seeds, and smooth variations."""

import math
import time

import pytest
import torch
from torch import Tensor

from hepinf.binned.model import BinnedModel
from hepinf.binned.processes import Parameter, Process, Variation
from hepinf.binned.simulated import Simulated
from hepinf.core.errors import InputError
from hepinf.stats.priors import Normal
from hepinf.summaries.binning import choose_bins
from hepinf.summaries.fisher import information_matrix, sigma_mu
from hepinf.summaries.histogram import bin_counts
from hepinf.summaries.losses import SigmaMuLoss, evaluate
from hepinf.summaries.observable import Observable
from hepinf.summaries.simulation import Shift, Simulation
from hepinf.summaries.smoothing import smooth, smooth_curves
from hepinf.summaries.templates import WeightMatrix, binned_model, templates
from hepinf.train.config import TrainConfig

BINS = 4


def t(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def quarters(x: Tensor) -> Tensor:
    return (x[:, 0] * BINS).long().clamp(0, BINS - 1)


def drawn(rng: torch.Generator, mean: float, process: str = "b") -> Simulation:
    "A Poisson number of events of one process, with weights that depend on the event."
    n = int(torch.poisson(torch.tensor(mean), generator=rng))
    x = torch.rand(n, 1, generator=rng)
    return Simulation.from_arrays(x, [process] * n, (0.5 + x[:, 0]).double() * 100 / mean)


def with_three_kinds(rng: torch.Generator) -> Simulation:
    "Weights of the same events, shifted events, and samples of their own."
    nominal = drawn(rng, 400.0)
    x, w = nominal.events, nominal.weights
    inside = torch.where(x[:, 0] > 0.9, 0.0, w)  # some events leave the selection
    variations = {
        "slope": (w * (1 - 0.5 * x[:, 0]), w * (1 + 0.8 * x[:, 0] ** 2)),
        "scale": ((x - 0.05), (x + 0.05, inside)),
        "shower": (drawn(rng, 300.0), drawn(rng, 600.0)),
    }
    return Simulation.from_arrays(x, ["b"] * len(x), w, variations)


def sources(process: Process) -> Tensor:
    "All templates, in the order of the covariance."
    varied = [side for v in process.variations.values() for side in (v.down, v.up)]
    return torch.stack([process.template, *varied], 1)


def test_the_covariance_is_that_of_simulations_of_other_seeds():
    rng, toys = torch.Generator().manual_seed(11), 500
    processes = [templates(with_three_kinds(rng), quarters, BINS)[0] for _ in range(toys)]
    assert processes[0].mc.variations == ("slope", "shower", "scale") == tuple(processes[0].variations)
    values = torch.stack([sources(p) for p in processes])  # (toys, bins, sources)
    away = values - values.mean(0)
    found = torch.einsum("nbs,nbt->bst", away, away) / (toys - 1)
    said = torch.stack([p.mc.covariance for p in processes]).mean(0)
    size = said.diagonal(dim1=1, dim2=2)
    error = ((size[:, :, None] * size[:, None] + said**2) / toys).sqrt()
    pulls = ((found - said) / error)[torch.ones_like(found).triu().bool()]
    assert float(pulls.abs().max()) < 4.5 and 0.8 < float(pulls.std()) < 1.25
    apart = said[:, 3, [0, 1, 4, 5]]  # the down sample of the shower shares no event with any other template
    assert bool((apart == 0).all()) and bool((said[:, 0, 2] > 0.9 * (size[:, 0] * size[:, 2]).sqrt()).all())


def test_the_covariance_of_groups_is_the_sum_and_of_halves_the_double():
    rng = torch.Generator().manual_seed(12)
    n = 6000
    x, labels = torch.rand(n, 1, generator=rng), ["a", "b", "c"] * (n // 3)
    w = torch.rand(n, generator=rng).double()
    other = [drawn(rng, 900.0) for _ in range(2)]
    everything = Simulation.from_arrays(
        x, labels, w, {"rate": (0.9 * w, 1.1 * w), "scale": (x - 0.1, x + 0.1), "tune": other}
    )
    a, b, c = templates(everything, quarters, BINS)
    assert "tune" not in a.variations and a.mc.variations == ("rate", "scale") and "tune" in b.mc.variations
    group = templates(everything.merged({"g": ["a", "c"]}), quarters, BINS)[0]
    torch.testing.assert_close(group.mc.covariance, a.mc.covariance + c.mc.covariance)
    whole = templates(everything.merged({"g": ["a", "b", "c"]}), quarters, BINS)[0]
    same = [0, 1, 2, 5, 6]  # nominal, rate, scale
    torch.testing.assert_close(
        whole.mc.covariance[:, same][:, :, same], group.mc.covariance + b.mc.covariance[:, same][:, :, same]
    )
    assert bool((whole.mc.covariance[:, 0, 4] > 0).all())  # "a" and "c" are not varied: their events are in up as well
    for half in everything.split([0.5, 0.5], seed=3):
        for one, part in zip((a, b, c), templates(half, quarters, BINS)):
            ratio = part.mc.covariance.diagonal(dim1=1, dim2=2).sum(0) / one.mc.covariance.diagonal(dim1=1, dim2=2).sum(
                0
            )
            assert bool(((ratio - 2).abs() < 0.25).all())
            assert abs(part.mc.unseen / one.mc.unseen - 2) < 0.1
            for name, varied in part.variations.items():
                torch.testing.assert_close(varied.up.sum(), one.variations[name].up.sum(), rtol=0.03, atol=0)


def test_samples_of_their_own_are_in_the_weight_matrix_and_the_model():
    rng = torch.Generator().manual_seed(13)
    simulation = with_three_kinds(rng)
    (process,) = templates(simulation, quarters, BINS)
    matrix = WeightMatrix.of(simulation, ["b"], dtype=torch.float64)
    rows = sum(bin_counts(quarters(x.flatten(0, 1)), BINS, w.flatten(0, 1)) for x, w in matrix.groups.values())
    torch.testing.assert_close(rows[0], process.template)
    for row, name in zip(rows[1:], matrix.nuisances):
        torch.testing.assert_close(row, (process.variations[name].up - process.variations[name].down) / 2)
    assert matrix.sizes["still"] == int((simulation.sample > 0).sum())
    model = binned_model(simulation, quarters, BINS, ["b"])
    assert list(model.parameter_names) == ["mu_b", "slope", "shower", "scale"]
    for mode in ("lite", "full"):
        assert binned_model(simulation, quarters, BINS, ["b"], mc=mode).parameter_names == model.parameter_names
    with pytest.raises(InputError, match="did you mean 'full'"):
        binned_model(simulation, quarters, BINS, ["b"], mc="ful")
    on_cpu = simulation.to("cpu").with_nuisances(["shower", "slope"])
    assert len(on_cpu.events) == len(simulation.events) and on_cpu.nuisances == ("slope", "shower")


def test_negative_sums_of_weights():
    "The covariance is that of the weights; a model of such templates is refused by the bin."
    x = torch.tensor([[0.1], [0.2], [0.3], [0.6], [0.7], [0.8]])
    signed = Simulation.from_arrays(x, ["s", "b"] * 3, t(1.0, 1.0, -2.0, 1.0, 1.0, -3.0))
    s, b = templates(signed, quarters, BINS)
    assert s.mc.variance.tolist() == [1, 4, 1, 0] and s.mc.unseen == 6 / 4  # the sum is 0: that of absolute weights
    assert b.mc.unseen == 11 / 5
    with pytest.raises(InputError, match="process 's', template: the weights in bin 1 add up to -2"):
        binned_model(signed, quarters, BINS, ["s"], mc="full")
    with pytest.raises(InputError, match="process 's': its weights add up to"):
        Observable(["s"], training=TrainConfig(epochs=1, progress=False)).fit(signed)


def test_covariances_that_do_not_fit_are_refused():
    template, variations = t(3.0, 4.0), {"jes": Variation(t(2.0, 3.0), t(4.0, 5.0), 1.0)}
    parameters = [Parameter("mu", 1.0), Parameter("jes", 0.0, constraint=Normal(0.0, 1.0))]
    for mc, message in (
        (
            Simulated.independent(t(1.0, 1.0, 1.0), {"jes": (t(1.0, 1.0, 1.0), t(1.0, 1.0, 1.0))}),
            "has 3 bins, the template 2",
        ),
        (Simulated.independent(t(1.0, 1.0)), "says nothing of the variation 'jes'"),
    ):
        with pytest.raises(InputError, match=message):
            BinnedModel([Process("s", template, "mu", variations, mc=mc)], parameters)
    for call, message in (
        (lambda: Simulated.independent(t(1.0, math.nan)), "bin 1"),
        (lambda: Simulated.independent(t(1.0, 1.0), {"jes": (t(1.0), t(1.0, 1.0))}), "one number for each of the bins"),
        (lambda: Simulated(torch.full((2, 3, 3), -1.0), ("jes",)), "bin 0 has the negative eigenvalue"),
        (lambda: Simulated(t(1.0, 2.0)[:, None, None], ("jes",)), "3 x 3 numbers are needed in each bin"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_samples_that_do_not_fit_are_refused():
    x, labels, w = torch.rand(6, 2), ["s", "b"] * 3, torch.ones(6)
    fine = Simulation.from_arrays(x, labels, w)
    for pair, message in (
        ((fine, w), "variation 'tune': one side is a Simulation of other events; the other side must be one"),
        (
            (fine, Simulation.from_arrays(x, ["s"] * 6)),
            "variation 'tune': only one of its two samples has events of the process 'b'",
        ),
        ((fine, Simulation.from_arrays(x[:, :1], labels)), "variation 'tune', up: 1 columns of events, nominal 2"),
        (
            (Simulation.from_arrays(x, ["s", "bb"] * 3), fine),
            "variation 'tune', down: unknown process 'bb'; did you mean 'b'",
        ),
        (
            (fine, Simulation.from_arrays(x, labels, w, {"r": (w, w)})),
            "'tune', up: the sample of a variation has variations",
        ),
    ):
        with pytest.raises(InputError, match=message):
            Simulation.from_arrays(x, labels, w, {"tune": pair})


def test_simulation_noise_in_sigma_is_one_more_parameter_in_each_bin():
    "K with sums of squared weights is the profile of one free template noise per bin."
    rng = torch.Generator().manual_seed(14)
    signal, background, slopes, noise = (
        torch.rand(shape, generator=rng, dtype=torch.float64) + 0.1 for shape in ((2, 7), (7,), (3, 7), (7,))
    )
    unseen = t(0.3, 0.1, 0.6)
    variance = noise + float((unseen**2).sum())
    rows = torch.cat([signal, slopes, torch.eye(7, dtype=torch.float64)])
    prior = torch.cat([torch.zeros(2), torch.ones(3), 1 / variance]).double()
    expected = torch.linalg.inv(information_matrix(rows, background + signal.sum(0), prior)).diagonal()[:2].sqrt()
    torch.testing.assert_close(sigma_mu(signal, background, slopes, mc_variance=noise, unseen=unseen), expected)


def test_a_bin_that_hides_a_background_is_no_gain_with_its_noise():
    "Two events of weight 20 decide what a bin of 20 signal events expects: seen in one half, not in the other."
    n = 2000
    x = torch.cat([torch.linspace(0.5, 1, n), torch.linspace(0, 0.4, 50), torch.tensor([0.9, 0.95])])[:, None]
    labels, w = ["s"] * n + ["b"] * 52, torch.cat([torch.full((n,), 20 / n), torch.full((52,), 20.0)])
    seen, hidden = Simulation.from_arrays(x, labels, w), Simulation.from_arrays(x[:-2], labels[:-2], w[:-2])
    ideal, noisy = ({}, {})
    for name, simulation in (("seen", seen), ("hidden", hidden)):
        matrix = WeightMatrix.of(simulation, ["s"])
        ideal[name] = float(evaluate(matrix, quarters, BINS)["s"])
        judged = evaluate(matrix, quarters, BINS, mc=True)
        noisy[name] = float(judged["s"])
        assert "background 'b': bin " in judged.problems[0]
    assert ideal["hidden"] < 0.8 * ideal["seen"]  # the false gain
    assert noisy["hidden"] > ideal["seen"]
    choice = choose_bins(lambda k: lambda x: (x[:, 0] * k).long().clamp(0, k - 1), hidden, ["s"], candidates=(1, 2, 4))
    assert choice.bins == 1 and choice.ok and choice.total[1] < choice.total[0]
    with pytest.raises(InputError, match="mc: True, False or the ratio"):
        SigmaMuLoss(matrix, lambda m: m, mc=-1.0)


def wave(bins: int) -> Tensor:
    return 0.1 * torch.sin(3 * torch.linspace(-1, 1, bins, dtype=torch.float64))


def independent_process(rng: torch.Generator, bins: int, weight: float) -> tuple[Process, Tensor]:
    "10000 expected events with templates of their own, and the true templates."
    expected = 10_000 / bins
    true = torch.stack([torch.ones(bins).double(), 1 - wave(bins), 1 + wave(bins)]) * expected
    nominal, down, up = torch.poisson(true / weight, generator=rng) * weight
    errors = [(weight * side).sqrt() for side in (nominal, down, up)]
    mc = Simulated.independent(errors[0], {"tune": (errors[1], errors[2])}, unseen=weight)
    return Process("b", nominal, variations={"tune": Variation(down, up, 1.0)}, mc=mc), true.mT


@pytest.mark.parametrize(("bins", "weight"), [(20, 0.3), (20, 1.0), (100, 0.3)])
def test_smoothed_variations_are_as_uncertain_as_they_say(bins, weight):
    "Of the slope, and of the whole expectation nominal + theta x slope, which is what enters a fit."
    rng, toys = torch.Generator().manual_seed(15), 150 if bins == 20 else 30
    pulls, gains = {"slope": [], "down": [], "up": []}, []
    for _ in range(toys):
        process, true = independent_process(rng, bins, weight)
        smoothed = smooth(process)
        for name, a in (("slope", t(0.0, -0.5, 0.5)), ("down", t(1.0, 0.5, -0.5)), ("up", t(1.0, -0.5, 0.5))):
            variance = a @ smoothed.mc.covariance @ a
            pulls[name].append(((sources(smoothed) - true) @ a) / variance.sqrt())
            if name == "slope":
                gains.append((variance / (a @ process.mc.covariance @ a)).mean())
    for found in pulls.values():
        assert 0.88 < float(torch.cat(found).std()) < 1.06
    assert float(torch.stack(gains).mean()) < (0.45 if bins == 20 else 0.1)


def test_smoothed_migrations_are_as_uncertain_as_they_say():
    """Events that a shift moves over the borders of bins. What leaves a bin enters its neighbour, so that the noise of
    neighbours cancels in the smooth curve; the fit does not know it, and says too large an error, never too small."""
    rng, bins = torch.Generator().manual_seed(16), 20
    normal = torch.distributions.Normal(torch.tensor(0.0).double(), 1.0)
    edges = torch.linspace(-3, 3, bins + 1, dtype=torch.float64)

    def rule(x):
        return ((x[:, 0] + 3) / 6 * bins).long().clamp(0, bins - 1)

    def at(shift):
        below = normal.cdf(edges - shift)
        below[0], below[-1] = 0.0, 1.0
        return 3000 * below.diff()

    true = (at(0.15) - at(-0.15)) / 2
    pulls, raw_pulls, gains, a = [], [], [], t(0.0, -0.5, 0.5)
    for _ in range(100):
        n = int(torch.poisson(torch.tensor(3000.0), generator=rng))
        x = torch.randn(n, 1, generator=rng)
        simulation = Simulation(
            x,
            torch.zeros(n, dtype=torch.int64),
            torch.ones(n),
            ("b",),
            shifts={"scale": (Shift(x - 0.15), Shift(x + 0.15))},
        )
        (process,) = templates(simulation, rule, bins)
        smoothed = smooth(process, ["scale"])
        said, raw = a @ smoothed.mc.covariance @ a, a @ process.mc.covariance @ a
        inner = slice(3, -3)
        pulls.append(((sources(smoothed) @ a - true) / said.sqrt())[inner])
        raw_pulls.append(((sources(process) @ a - true) / raw.sqrt())[inner])
        gains.append((said / raw)[inner].mean())
    assert 0.9 < float(torch.cat(raw_pulls).std()) < 1.1
    assert 0.5 < float(torch.cat(pulls).std()) < 1.05 and float(torch.stack(gains).mean()) < 0.8


def test_many_curves_are_smoothed_at_once():
    rng = torch.Generator().manual_seed(17)
    y = wave(20) + 0.03 * torch.randn(6000, 20, generator=rng, dtype=torch.float64)
    start = time.process_time()
    fits = smooth_curves(y, torch.full_like(y, 0.03**2))
    assert time.process_time() - start < 5
    one = smooth_curves(y[:1], torch.full_like(y[:1], 0.03**2))
    torch.testing.assert_close(one.values[0], fits.values[0])


def test_a_rough_truth_is_not_smoothed_away_where_it_can_be_seen():
    "A single bin of 15 %, with errors of 1 %: what is left of it is within the errors of the points."
    rng = torch.Generator().manual_seed(18)
    spike = torch.zeros(20, dtype=torch.float64)
    spike[9] = 0.15
    y = spike + 0.01 * torch.randn(200, 20, generator=rng, dtype=torch.float64)
    fits = smooth_curves(y, torch.full_like(y, 1e-4))
    error = fits.covariance.diagonal(dim1=1, dim2=2).sqrt()
    assert abs(float(((fits.values - spike) / error).std()) - 1) < 0.1
    assert abs(float(fits.values[:, 9].mean()) - 0.15) < 0.015


def test_an_observable_learns_from_samples_of_their_own():
    "The background moves along x_2 in other events, or in the same: the score is as good."
    n = 20_000

    def background(seed: int, at: float) -> Tensor:
        return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) + torch.tensor([1.0, 1.0 + at])

    signal = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    x, labels = torch.cat([signal, background(2, 0.0)]), ["signal"] * n + ["background"] * n
    w = torch.cat([torch.full((n,), 50 / n), torch.full((n,), 1000 / n)])
    step = torch.cat([torch.zeros(n, 2), torch.tensor([[0.0, 1.0]]).expand(n, 2)])
    moved = tuple(Simulation.from_arrays(background(s, a), ["background"] * n, w[n:]) for s, a in ((3, -1.0), (4, 1.0)))
    test = Simulation.from_arrays(x, labels, w, {"x2": (x - step, x + step)})
    sigma = {}
    for name, pair in (("shifts", (x - step, x + step)), ("samples", moved)):
        observable = Observable(["signal"], training=TrainConfig(epochs=2, progress=False)).fit(
            x, labels, w, {"x2": pair}
        )
        sigma[name] = float(evaluate(WeightMatrix.of(test, ["signal"]), observable, 8)["signal"])
    assert abs(sigma["samples"] / sigma["shifts"] - 1) < 0.03
