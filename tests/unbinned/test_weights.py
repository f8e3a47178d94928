"""Weights of events: errors from their squares, as repeated data sets scatter and as closed forms say."""

import math

import numpy as np
import pytest
import torch

import hepinf as hi
from hepinf.core.errors import InputError
from hepinf.problems.bump import BreitWigner, Exponential
from hepinf.unbinned.mixture import bin_events

BACKGROUND = hi.Mixture({"b": Exponential()})
TRUTH = torch.tensor([100.0], dtype=torch.float64)


def weighted_sample(seed: int, n: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    "Events of a decay length of 100 GeV; half of them weigh 1, half 19."
    g = torch.Generator().manual_seed(seed)
    x = Exponential().sample(n, TRUTH, g)
    return x, torch.where(torch.rand(n, generator=g) < 0.5, 1.0, 19.0)


def decay_length_error() -> float:
    "Standard deviation of the decay length of one event, by quadrature of the score in the window."
    m = torch.linspace(50.0, 550.0, 200_001, dtype=torch.float64)[:, None]
    density = Exponential().log_prob(m, TRUTH).exp()
    step = 0.01
    slope = (Exponential().log_prob(m, TRUTH + step) - Exponential().log_prob(m, TRUTH - step)) / (2 * step)
    assert float(density.sum() * 500 / 200_000) == pytest.approx(1, abs=1e-4)
    return float((density * slope**2).sum() * 500 / 200_000) ** -0.5


def test_errors_of_weighted_events_are_those_of_repeated_data_sets():
    """The exact error is sd(one event) sqrt(sum w^2) / sum w = 3.4 GeV; read as counts, the weights would give 0.77.

    The scatter of 40 data sets is known to 1 / sqrt(78) = 11 %; four of that are allowed.
    """
    fits = []
    for seed in range(40):
        x, w = weighted_sample(seed)
        data = BACKGROUND.at(x, w).starting_at(TRUTH)
        found = hi.fit(data)
        fits.append((float(found["tau"]), float(found.error[0])))
        assert found.ok
    tau, error = np.array(fits).T
    exact = decay_length_error() * float(w.double().square().sum()) ** 0.5 / float(w.sum())
    assert error.mean() == pytest.approx(exact, rel=0.03)
    assert tau.std(ddof=1) == pytest.approx(exact, rel=0.45)
    assert data.yield_errors(found.theta)["b"] == pytest.approx(float(w.double().square().sum()) ** 0.5, rel=1e-6)
    low, high = (float(end) for end in (hi.interval(data, "tau").low, hi.interval(data, "tau").high))
    assert (high - low) / 2 == pytest.approx(exact, rel=0.1)
    assert float(hi.fit(BACKGROUND.at(x, w, counts=True)).error[0]) == pytest.approx(exact / 4.35, rel=0.1)


def test_a_scan_gives_the_same_errors_and_says_how_weights_were_read():
    x, w = weighted_sample(1)
    scan, fit = hi.scan(BACKGROUND.at(x, w)), hi.fit(BACKGROUND.at(x, w))
    assert float(scan["tau"]) == pytest.approx(float(fit["tau"]), rel=1e-3)
    assert float(scan.error[0]) == pytest.approx(float(fit.error[0]), rel=1e-2)
    assert scan.yield_errors["b"] == pytest.approx(float(w.double().square().sum()) ** 0.5, rel=1e-6)
    assert "2000 weighted events, worth" in repr(scan) and "counts=True" in repr(scan)
    assert "2000 weighted events" in repr(BACKGROUND.at(x, w)) and "rows that stand for" in repr(
        BACKGROUND.at(x, w, counts=True)
    )
    assert "weighted" not in repr(hi.scan(BACKGROUND.at(x)))


def test_equal_weights_change_no_error_and_unit_weights_nothing():
    x, _ = weighted_sample(2)
    plain = hi.fit(BACKGROUND.at(x))
    for weight in (1.0, 0.01, 300.0):
        found = hi.fit(BACKGROUND.at(x, torch.full((len(x),), weight)))
        assert float(found["tau"]) == pytest.approx(float(plain["tau"]), rel=1e-6)
        assert float(found.error[0]) == pytest.approx(float(plain.error[0]), rel=0.05)


def test_counts_are_numbers_of_events():
    x, _ = weighted_sample(3)
    twice = hi.fit(BACKGROUND.at(torch.cat([x, x])))
    counted = hi.fit(BACKGROUND.at(x, np.full(len(x), 2), counts=True))
    torch.testing.assert_close(counted.theta, twice.theta)
    torch.testing.assert_close(counted.error, twice.error)
    rows = hi.fit(BACKGROUND.at(*bin_events(x[:, 0], 40.0, 560.0, 2000), counts=True))
    torch.testing.assert_close(rows.error, hi.fit(BACKGROUND.at(x)).error, rtol=1e-2, atol=0)


def test_weights_that_subtract_a_background():
    """Events in the peak get weight 1, those of a control sample -0.5: their sum is a sample of the peak alone.

    The variance of the place of the peak is that of a sum: each event counts by the square of its weight.
    """
    places, errors = [], []
    peak, truth = hi.Mixture({"s": BreitWigner()}), torch.tensor([300.0, 20.0], dtype=torch.float64)
    for seed in range(16):
        g = torch.Generator().manual_seed(seed)
        signal = BreitWigner().sample(800, truth, g)
        under, control = (Exponential().sample(n, TRUTH, g) for n in (400, 800))
        x = torch.cat([signal, under, control])
        w = torch.cat([torch.ones(1200), torch.full((800,), -0.5)])
        found = hi.fit(peak.at(x, w).starting_at(truth), fixed={"Gamma": 20.0})
        places.append(float(found["M_pole"]))
        errors.append(float(found.error[0]))
        assert found.ok
    assert np.mean(errors) == pytest.approx(np.std(places, ddof=1), rel=0.7)  # known to 1 / sqrt(30)
    assert np.mean(places) == pytest.approx(300.0, abs=4 * np.std(places) / math.sqrt(16))
    assert peak.at(x, w).yields(truth)["s"] == pytest.approx(800.0)


@pytest.mark.parametrize(
    "weights, counts, message",
    [
        (np.full(2000, -1.0), False, "add up to -2000"),
        (np.full(2000, -1.0), True, "event 0 has -1"),
        (np.full(2000, np.nan), False, "event 0 has nan"),
        (np.zeros(2000), False, "add up to 0"),
        ([1.0, 2.0], False, "weights and events do not match: 2 and 2000"),
        (["1"] * 2000, False, "element 0 is '1'"),
    ],
)
def test_what_is_no_weight_is_named(weights, counts, message):
    with pytest.raises(InputError, match=message):
        BACKGROUND.at(weighted_sample(0)[0], weights, counts=counts)


def test_arrays_and_widths():
    x, w = weighted_sample(4)
    expected = BACKGROUND.at(x, w).log_prob(TRUTH)
    assert float(BACKGROUND.at(x.numpy(), w.numpy()).log_prob([100])) == pytest.approx(float(expected), rel=1e-12)
    for bad, message in ((x[:, 0], "a single column is x"), (torch.ones(3, 2), r"1 column \(M\) needed")):
        with pytest.raises(InputError, match=message):
            BACKGROUND.at(bad)
    with pytest.raises(InputError, match=r"theta: 1 column \(tau\) needed"):
        BACKGROUND.at(x).log_prob([100.0, 1.0])
