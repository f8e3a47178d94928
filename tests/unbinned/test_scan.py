"""Scans with learnt densities: independent minimisers, coverage on the toy, large data, files of a user, edges."""

import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from iminuit import Minuit

from hepinf.problems import bump
from hepinf.problems.dijet import events as dijet
from hepinf.train.config import TrainConfig
from hepinf.unbinned.conditional import ConditionalFlow, TruncatedDensity, train_conditional
from hepinf.unbinned.coordinates import Coordinates
from hepinf.unbinned.ensemble import ensemble_error
from hepinf.unbinned.grid import grid
from hepinf.unbinned.likelihood import UnbinnedLikelihood
from hepinf.unbinned.mixture import Mixture, Term, bin_events
from hepinf.unbinned.result import ScanConfig
from hepinf.unbinned.scan import scan

EXACT = {"signal": bump.BreitWigner(), "background": bump.Exponential()}


def test_extended_fit_equals_minuit():
    """Five free parameters in iminuit, three here with the yields inside: same point, same errors, same yields."""
    truth = torch.tensor([260.0, 20.0, 100.0], dtype=torch.float64)
    x = bump.pseudo_data(truth, torch.Generator().manual_seed(3), 2000, 20_000)
    likelihood = Mixture(EXACT).at(x)
    found = scan(likelihood)
    m = x[:, 0].numpy()
    a, b = bump.WINDOW

    def nll(pole, gamma, tau, signal, background):
        half = gamma / 2
        norm = math.atan((b - pole) / half) - math.atan((a - pole) / half)
        peak = 1 / (half * (1 + ((m - pole) / half) ** 2) * norm)
        tail = np.exp(-(m - a) / tau) / (tau * (1 - math.exp(-(b - a) / tau)))
        return signal + background - np.log(signal * peak + background * tail).sum()

    minuit = Minuit(nll, *truth.tolist(), 2000, 20_000)
    minuit.errordef = Minuit.LIKELIHOOD
    minuit.migrad()
    minuit.hesse()
    assert found.ok and minuit.valid
    values, errors = torch.tensor(list(minuit.values)), torch.tensor(list(minuit.errors))
    assert bool(((found.theta - values[:3]).abs() < 0.02 * errors[:3]).all())
    # curvature over one standard deviation against curvature at the point
    torch.testing.assert_close(found.error, errors[:3].double(), rtol=0.03, atol=0)
    assert abs(found.yields["signal"] - float(values[3])) < 0.02 * float(errors[3])
    assert found.yield_errors["signal"] == pytest.approx(float(errors[3]), rel=0.03)


def test_exact_pulls_and_fixed_yields():
    """20 toys with yields fixed as in the talk: means and widths of the pulls, within four standard deviations."""
    generator, pulls, toys = torch.Generator().manual_seed(5), [], 20
    for truth in bump.random_parameters(toys, generator):
        x = bump.pseudo_data(truth, generator, 1000, 10_000)
        rows = bin_events(x[:, 0], *bump.WINDOW, 2000)
        mixture = Mixture(EXACT, {"signal": 1000, "background": 10_000})
        found = scan(mixture.at(*rows, counts=True), ScanConfig(starts=2))
        assert found.ok, found.problems
        pulls.append((found.theta - truth) / found.error)
    pulls = torch.stack(pulls)
    assert float(pulls.mean(0).abs().max()) < 4 / math.sqrt(toys)
    assert float((pulls.std(0) - 1).abs().max()) < 4 / math.sqrt(2 * toys)


def test_parameters_beyond_the_box_are_said():
    truth = torch.tensor([500.0, 10.0, 100.0], dtype=torch.float64)
    x = bump.pseudo_data(truth, torch.Generator().manual_seed(4), 4000, 20_000)
    found = scan(Mixture(EXACT).at(x))
    assert "'M_pole' ran to 470, the edge of the trained region [130, 470]" in found.problems


def test_two_signals():
    generator = torch.Generator().manual_seed(6)
    one, two = (torch.tensor(v, dtype=torch.float64) for v in ([220.0, 12.0], [340.0, 25.0]))
    peaks = [bump.BreitWigner().sample(n, v, generator) for n, v in ((4000, one), (3000, two))]
    tail = torch.tensor([110.0], dtype=torch.float64)
    x = torch.cat([*peaks, bump.Exponential().sample(20_000, tail, generator)])
    again = Term(bump.BreitWigner(), {"M_pole": "M_2", "Gamma": "Gamma_2"})
    likelihood = Mixture({"a": bump.BreitWigner(), "b": again, "tail": bump.Exponential()}).at(x)
    found = scan(likelihood, ScanConfig(starts=6, coarse=256))
    assert found.ok, found.problems
    low, high = sorted((found.theta[:2].tolist(), found.theta[2:4].tolist()))
    for fitted, wanted, k in ((low, one, 0), (high, two, 2)):
        assert abs(fitted[0] - float(wanted[0])) < 2.0 and abs(fitted[1] - float(wanted[1])) < 4.0, (fitted, k)
    assert found.names == ["M_pole", "Gamma", "M_2", "Gamma_2", "tau"]


@pytest.fixture(scope="module")
def densities():
    """Small networks on a part of the simulated events: half a minute."""
    known = dijet.dijet_samples()
    training = TrainConfig(epochs=4, batch_size=256, progress=False)
    x, masses = known["signal"].x[::4], known["signal"].masses[::4]
    signal_ = train_conditional(x, masses, dijet.SIGNAL, dijet.CONTEXT, box=dijet.BOX, training=training, seeds=(0, 1))
    background = train_conditional(known["background"].x[:10_000], None, dijet.BACKGROUND, training=training)
    return known, signal_, background


def test_masses_off_the_grid(densities):
    """Even these small networks find masses within 2 to 6 per cent, where the grid has steps of 12 to 100."""
    known, signal_, background = densities
    generator = torch.Generator().manual_seed(8)
    for masses in known["off_grid"].points[:2]:
        events = known["off_grid"].at(*masses.tolist())[:1000]
        pool = known["background"].x[10_000:]
        rest = pool[torch.randperm(len(pool), generator=generator)[:5000]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            likelihood = Mixture({"signal": signal_, "background": background}).at(torch.cat([events, rest]))
        found = scan(likelihood)
        assert bool(((found.theta / masses - 1).abs() < torch.tensor([0.02, 0.05, 0.06])).all()), found
        assert abs(found.yields["signal"] - 1000) < 5 * found.yield_errors["signal"] + 50
        assert bool((ensemble_error(likelihood, found) > 0).all())


def test_a_million_events_in_pieces(densities):
    known, signal_, background = densities
    n = 200_000
    x = known["background"].x[10_000:][torch.randint(50_000, (n,), generator=torch.Generator().manual_seed(1))]
    x = x[~(background.outside(x) | signal_.outside(x))]
    mixture = Mixture({"signal": signal_.member(0), "background": background})
    theta = torch.tensor([3600.0, 520.0, 110.0], dtype=torch.float64)
    whole = UnbinnedLikelihood(mixture, x[:20_000], chunk=3000, keep_graph_below=10**9).value_and_gradient(theta)
    pieces = UnbinnedLikelihood(mixture, x[:20_000], chunk=3000, keep_graph_below=0).value_and_gradient(theta)
    torch.testing.assert_close(whole[0], pieces[0])
    torch.testing.assert_close(whole[1], pieces[1], rtol=1e-6, atol=1e-6)
    value, slope = UnbinnedLikelihood(mixture, x, keep_graph_below=100_000).value_and_gradient(theta)
    assert math.isfinite(float(value)) and bool(slope.isfinite().all())


def test_selected_density_is_normalised(densities):
    """Inside a window of m_JJ, samples of the density have the selected density's probability for a narrower one."""
    _, signal_, _ = densities
    theta = torch.tensor([3600.0, 520.0, 110.0], dtype=torch.float64)
    one = TruncatedDensity(signal_, 3300.0, 3700.0)
    x = signal_.sample(40_000, theta, torch.Generator().manual_seed(2))
    x = x[~one.outside(x)]
    part = float((x[:, 0] < 3500).double().mean())
    expected = float((signal_.log_fraction(theta, 3300.0, 3500.0) - signal_.log_fraction(theta, 3300.0, 3700.0)).exp())
    assert abs(part - expected) < 4 * math.sqrt(0.25 / len(x))


def test_saved_density_is_the_same_and_guarded(densities, tmp_path):
    known, signal_, _ = densities
    folder = signal_.save(tmp_path / "signal")
    again = ConditionalFlow.load(folder)
    x, theta = known["seed_point"].x[:100], torch.tensor([3500.0, 500.0, 100.0], dtype=torch.float64)
    assert torch.equal(again.log_prob(x, theta), signal_.log_prob(x, theta))
    card = (folder / "card.json").read_text()
    (folder / "card.json").write_text(card.replace("log(mJJ / m_Zprime)", "log(mJJ / m_X)"))
    with pytest.raises(ValueError, match="changed after it was written"):
        ConditionalFlow.load(folder)


def test_grid_and_scan_agree():
    truth = torch.tensor([300.0, 15.0, 90.0], dtype=torch.float64)
    rows = bin_events(bump.pseudo_data(truth, torch.Generator().manual_seed(9), 1000, 5000)[:, 0], *bump.WINDOW, 2000)
    likelihood = Mixture(EXACT).at(*rows, counts=True)
    found = scan(likelihood)
    axis = torch.linspace(-2, 2, 9, dtype=torch.float64)
    others = {"Gamma": float(found.theta[1]), "tau": float(found.theta[2])}
    values, _ = grid(likelihood, {"M_pole": found.theta[0] + axis * found.error[0]}, others)
    assert int(values.argmax()) == 4 and float(values.max()) <= found.log_prob + 1e-6


@pytest.mark.parametrize(("content", "wanted"), [(None, "there is no file"), ("short", "no column 'tau21_J2'")])
def test_a_bad_file_stops_the_run_at_once(tmp_path, content, wanted):
    path = tmp_path / "events.npz"
    if content:
        np.savez(path, **dict.fromkeys(dijet.FEATURES[:4], np.ones(3)))
    command = [sys.executable, "-m", "papermill", "--log-level", "ERROR", "--no-progress-bar"]
    command += [
        str(Path(__file__).resolve().parents[2] / "nbs" / "papers" / "parameter_scan.ipynb"),
        str(tmp_path / "o.ipynb"),
    ]
    done = subprocess.run([*command, "-p", "data", str(path)], capture_output=True, text=True)
    assert done.returncode and wanted in done.stderr


def test_relative_coordinates_know_their_features():
    with pytest.raises(ValueError, match="unknown name 'm_Z'; did you mean"):
        Coordinates({"mJJ": "log(mJJ / m_Z)"}, {"mJJ": (1.0, 2.0)}, ["m_Zprime"])
