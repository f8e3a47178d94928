"Tables of yields, contours, several parameters of interest, formulas and groups, against pyhf and closed forms."

import csv
import io
import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pyhf
import pytest
import torch

from hepinf.binned.model import BinnedModel
from hepinf.binned.processes import Parameter, Process, Variation
from hepinf.binned.storage import pack_model, unpack_model
from hepinf.core.errors import InputError
from hepinf.infer.contours import contour, threshold
from hepinf.infer.hypotest import discovery
from hepinf.infer.impacts import impacts
from hepinf.infer.intervals import interval
from hepinf.infer.mle import fit
from hepinf.infer.upper_limit import upper_limit
from hepinf.infer.yield_table import yield_table
from hepinf.posterior.joint import Joint
from hepinf.stats.priors import Normal, Uniform

DATA = os.environ.get("HEPINF_DATA")
PUBLISHED = sorted((Path(DATA) / "workspaces").glob("*.json")) if DATA else []


@pytest.fixture(autouse=True)
def quiet_pyhf():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    pyhf.set_backend("numpy")
    torch.set_default_dtype(torch.float32)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def signals_workspace(count: int = 2, poi: str = "mu1") -> dict:
    "Some signals of unknown strength, each in other bins, on a background with a rate and a shape."
    rng = np.random.default_rng(count)
    background = rng.uniform(30, 60, count + 2)
    samples = []
    for k in range(count):
        peak = 20 * np.exp(-0.5 * (np.arange(count + 2) - k - 0.5) ** 2)
        strength = {"name": f"mu{k + 1}", "type": "normfactor", "data": None}
        samples.append({"name": f"signal{k + 1}", "data": peak.tolist(), "modifiers": [strength]})
    tilt = np.linspace(-0.1, 0.1, count + 2)
    modifiers = [
        {"name": "rate", "type": "normsys", "data": {"lo": 0.93, "hi": 1.08}},
        {
            "name": "tilt",
            "type": "histosys",
            "data": {"lo_data": (background * (1 - tilt)).tolist(), "hi_data": (background * (1 + tilt)).tolist()},
        },
        {"name": "mc", "type": "staterror", "data": (0.04 * background).tolist()},
    ]
    samples.append({"name": "background", "data": background.tolist(), "modifiers": modifiers})
    counts = rng.poisson(background + 0.8 * np.sum([s["data"] for s in samples[:-1]], axis=0)).tolist()
    parameters = [{"name": f"mu{k + 1}", "bounds": [[0.0, 10.0]], "inits": [1.0]} for k in range(count)]
    return {
        "version": "1.0.0",
        "channels": [{"name": "bins", "samples": samples}],
        "observations": [{"name": "bins", "data": counts}],
        "measurements": [{"name": "main", "config": {"poi": poi, "parameters": parameters}}],
    }


def events_by_sample(model: pyhf.Model, pars: np.ndarray) -> np.ndarray:
    "pyhf's expected events (samples, bins), 0 where a channel has no such sample."
    return np.asarray(model.main_model.expected_data(pars.tolist(), return_by_sample=True))


def numeric_errors(model: pyhf.Model, theta: np.ndarray, covariance: np.ndarray, name: str) -> tuple[dict, np.ndarray]:
    "Events of a channel by sample, and their errors and that of the total, from central differences."
    span, step = model.config.channel_slices[name], 1e-4
    nominal = events_by_sample(model, theta)[:, span].sum(1)
    slopes = np.zeros((len(nominal), len(theta)))
    for k in np.flatnonzero(np.diag(covariance) > 0):
        move = np.zeros(len(theta))
        move[k] = step * np.sqrt(covariance[k, k])
        ends = [events_by_sample(model, theta + side * move)[:, span].sum(1) for side in (1, -1)]
        slopes[:, k] = (ends[0] - ends[1]) / (2 * move[k])
    slopes = np.vstack([slopes, slopes.sum(0)])
    return dict(zip(model.config.samples, nominal)), np.sqrt(np.einsum("sp,pq,sq->s", slopes, covariance, slopes))


def require_table_equals_pyhf(workspace: dict, after: bool) -> None:
    ours = BinnedModel.from_workspace(workspace)
    theirs = pyhf.Workspace(workspace).model(poi_name=None)
    best = fit(ours) if after else None
    if best is None:
        theta, sets = (
            np.array(theirs.config.suggested_init()),
            [theirs.config.param_set(n) for n in theirs.config.par_order],
        )
        widths = [s.width() if s.constrained else [0.0] * s.n_parameters for s in sets]
        covariance = np.diag(np.where(theirs.config.suggested_fixed(), 0.0, np.concatenate(widths)) ** 2)
    else:
        theta, keep = best.theta.numpy(), ~best.at_bound.numpy()
        covariance = np.where(np.outer(keep, keep), best.covariance.numpy(), 0.0)
    table = yield_table(ours, best)
    for channel in list(ours.channels)[:3]:
        nominal, errors = numeric_errors(theirs, theta, covariance, channel)
        for name, error in zip(theirs.config.samples, errors):
            if name in table[channel]:
                assert table[channel][name].value == pytest.approx(nominal[name], rel=1e-9, abs=1e-9)
                assert table[channel][name].error == pytest.approx(error, rel=1e-4, abs=1e-6), (channel, name)
        assert table[channel]["total"].error == pytest.approx(errors[-1], rel=1e-4, abs=1e-6)
        assert table[channel]["total"].value == pytest.approx(sum(nominal.values()), rel=1e-9)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_yields_and_their_errors_equal_differences_of_pyhf(count, after):
    require_table_equals_pyhf(signals_workspace(count), after)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_yields_of_published_workspaces_equal_differences_of_pyhf(path):
    "The first three channels of each; the central differences of pyhf are good to some 1e-5."
    require_table_equals_pyhf(json.loads(path.read_text()), True)


def test_a_table_leaves_as_values_and_as_latex():
    model = BinnedModel.from_workspace(signals_workspace())
    table = yield_table(model, fit(model), by="bin")
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(lines) == 4 * 5  # bins; three samples, total, observed
    total = [float(line["events"]) for line in lines if line["sample"] == "total"]
    assert total == table.total.tolist() and [int(line["bin"]) for line in lines[::5]] == [0, 1, 2, 3]
    assert torch.equal(table.observed, model.observed)
    assert yield_table(model, fit(model)).to_latex().count(r"\\") == 6  # head, three samples, total, observed
    by_channel = yield_table(model, fit(model))["bins"]
    assert by_channel["total"].value == pytest.approx(sum(total))


def pyhf_scan(workspace: dict, names: tuple[str, str], points: list[tuple[float, float]]) -> list[float]:
    "2 Delta log L of fits with two parameters fixed."
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-6))
    theirs = pyhf.Workspace(workspace)
    model, data = theirs.model(), theirs.data(theirs.model())
    start, bounds, fixed = (getattr(model.config, f"suggested_{what}")() for what in ("init", "bounds", "fixed"))
    _, lowest = pyhf.infer.mle.fit(data, model, start, bounds, fixed, return_fitted_val=True)
    scan = []
    for point in points:
        init, still = list(start), list(fixed)
        for name, value in zip(names, point):
            init[model.config.par_map[name]["slice"].start] = value
            still[model.config.par_map[name]["slice"].start] = True
        _, value = pyhf.infer.mle.fit(data, model, init, bounds, still, return_fitted_val=True)
        scan.append(float(value - lowest))
    return scan


def test_a_contour_equals_fits_of_pyhf_with_both_strengths_fixed():
    workspace = signals_workspace()
    result = contour(BinnedModel.from_workspace(workspace), ("mu1", "mu2"), points=15)
    assert result.ok
    cells = [(0, 0), (2, 12), (7, 7), (14, 3), (9, 14)]
    points = [(float(result.values[0][i]), float(result.values[1][j])) for i, j in cells]
    for (i, j), wanted in zip(cells, pyhf_scan(workspace, ("mu1", "mu2"), points)):
        assert float(result.scan[i, j]) == pytest.approx(wanted, abs=2e-4)
    on_lines = [tuple(line[::10].tolist()) for lines in result.lines for line in lines]
    for level, points in zip(result.levels, on_lines):
        heights = pyhf_scan(workspace, ("mu1", "mu2"), [tuple(p) for p in points])
        assert np.allclose(heights, threshold(level), rtol=0.05), heights  # interpolated in a grid of 15


def test_the_sides_of_a_contour_are_profile_intervals():
    model = BinnedModel.from_workspace(signals_workspace())
    result = contour(model, ("mu1", "mu2"), levels=(0.9,))
    for k, name in enumerate(result.names):
        ends = interval(model, name, level=math.erf(math.sqrt(threshold(0.9) / 2)))
        points = torch.cat(result.lines[0])[:, k]
        width = float(ends.high - ends.low)
        assert (
            abs(float(points.min() - ends.low)) < 0.02 * width and abs(float(points.max() - ends.high)) < 0.02 * width
        )


@pytest.mark.parametrize("count", [2, 3])
def test_each_of_several_strengths_has_its_significance_and_limit(count):
    "The others are profiled, as pyhf does with this parameter of interest."
    for k in range(count):
        poi = f"mu{k + 1}"
        ours = BinnedModel.from_workspace(signals_workspace(count))
        theirs = pyhf.Workspace(signals_workspace(count, poi))
        model, data = theirs.model(), theirs.data(theirs.model())
        pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-6))
        p0 = float(pyhf.infer.hypotest(0.0, data, model, test_stat="q0"))
        assert float(discovery(ours, poi=poi).p0) == pytest.approx(p0, rel=2e-3)
        limit = upper_limit(ours, poi=poi)
        cls = float(pyhf.infer.hypotest(float(limit.observed), data, model, test_stat="qtilde"))
        assert cls == pytest.approx(0.05, rel=5e-3)


def formula_model() -> BinnedModel:
    "Interference and square of an amplitude, a product of nuisances and a process with a root."
    flat = t(30.0, 25.0, 20.0)
    shape = {"jes": Variation(flat * t(0.9, 0.97, 1.05), flat * t(1.12, 1.02, 0.96), 1.0)}
    return BinnedModel(
        [
            Process("sm", flat, norm="lumi", variations=shape),
            Process("interference", t(3.0, -2.0, 5.0), norm=("lumi", "c*kappa")),
            Process("square", t(0.5, 3.0, 6.0), norm=("(c*kappa)**2", "lumi")),
            Process("other", t(8.0, 9.0, 7.0), norm="exp(0.1*jes)*sqrt(mu)/kappa"),
            Process("fakes", t(2.0, 2.0, 1.0), norm="max(1 + 0.2*f, 0.1)"),
        ],
        [
            Parameter("c", 0.5, (-3.0, 3.0)),
            Parameter("mu", 1.0, (0.0, 10.0)),
            Parameter("kappa", 1.0, (0.5, 1.5), Normal(1.0, 0.1)),
            Parameter("lumi", 1.0, (0.5, 1.5), Normal(1.0, 0.02)),
            Parameter("jes", 0.0, (-5.0, 5.0), Normal(0.0, 1.0)),
            Parameter("f", 0.0, (-10.0, 10.0), Normal(0.0, 1.0)),
        ],
        interpolation="quadratic",
    )


def random_points(model: BinnedModel, count: int) -> torch.Tensor:
    noise = torch.randn(count, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return model.nominal + noise * t(1.0, 0.15, 0.1, 0.02, 1.0, 4.0)


def test_derivatives_with_formulas_are_those_of_autograd():
    model = formula_model()
    points, counts = random_points(model, 40), t(47.0, 33.0, 40.0)
    bound = model.at(counts)
    value, gradient, hessian = model.derivatives(points, counts)
    torch.testing.assert_close(value, model.log_prob(points, counts))
    torch.testing.assert_close(gradient, torch.vmap(torch.func.grad(bound.log_prob))(points), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(hessian, torch.vmap(torch.func.hessian(bound.log_prob))(points), rtol=1e-8, atol=1e-8)
    _, again, slopes, weights, _ = model.linearised(points, counts)
    torch.testing.assert_close(again, gradient)
    torch.testing.assert_close(slopes, torch.vmap(torch.func.jacfwd(model.expected))(points))
    torch.testing.assert_close(weights, counts / model.expected(points) ** 2)
    torch.testing.assert_close(model.derivatives(points, counts, order=1)[1], gradient)


def test_a_formula_of_one_parameter_is_a_factor():
    "`1*mu` and `mu` are the same model."
    parameters = [Parameter("mu", 1.0, (0.0, 10.0)), Parameter("k", 1.0, (0.1, 3.0), Normal(1.0, 0.1))]
    counts, fits = t(14.0, 30.0), []
    for norm in ("mu", "1*mu"):
        signal, background = Process("signal", t(3.0, 9.0), norm), Process("background", t(10.0, 18.0), "k")
        fits.append(fit(BinnedModel([signal, background], parameters).at(counts)))
    torch.testing.assert_close(fits[0].theta, fits[1].theta, rtol=1e-7, atol=0)
    torch.testing.assert_close(fits[0].covariance, fits[1].covariance, rtol=1e-6, atol=0)


def test_intervals_do_not_depend_on_the_parametrisation():
    "The ends for mu in sqrt(mu) are the squares of the ends for the amplitude."
    background = Process("background", t(10.0, 18.0), "k")
    k = Parameter("k", 1.0, (0.1, 3.0), Normal(1.0, 0.1))
    counts = t(14.0, 30.0)
    root = BinnedModel([Process("s", t(3.0, 9.0), "sqrt(mu)"), background], [Parameter("mu", 1.0, (0.0, 30.0)), k])
    plain = BinnedModel([Process("s", t(3.0, 9.0), "a"), background], [Parameter("a", 1.0, (0.0, 30.0)), k])
    ours, wanted = interval(root.at(counts), "mu"), interval(plain.at(counts), "a")
    for side in ("value", "low", "high"):
        assert float(getattr(ours, side)) == pytest.approx(float(getattr(wanted, side)) ** 2, rel=1e-4)
    empty = fit(root.at(t(5.0, 10.0)))  # the best strength is zero, where the root has no slope
    assert empty.ok and float(empty["mu"]) == 0.0 and bool(empty.at_bound[0])


def test_a_parabola_has_both_its_minima():
    "1 + c^2: the data cannot tell the sign of c, and the contour of c and a nuisance has two parts."
    quadratic = Process("signal", t(40.0, 40.0), norm="1 + c**2")
    model = BinnedModel(
        [quadratic, Process("background", t(50.0, 60.0), norm="k")],
        [Parameter("c", 0.5, (-5.0, 5.0)), Parameter("k", 1.0, (0.2, 3.0), Normal(1.0, 0.02))],
    )
    likelihood = model.at(model.asimov(model.point(c=1.5)))
    best = fit(likelihood)
    assert best.ok and float(best["c"]) == pytest.approx(1.5, abs=1e-4)
    other = fit(likelihood.starting_at(model.point(c=-0.5)))
    assert float(other["c"]) == pytest.approx(-1.5, abs=1e-4)
    assert float(other.log_prob) == pytest.approx(float(best.log_prob), abs=1e-9)
    values = (torch.linspace(-3, 3, 41).double(), torch.linspace(0.85, 1.15, 21).double())
    found = contour(likelihood, ("c", "k"), levels=(0.95,), values=values)
    assert found.ok and len(found.lines[0]) == 2


def test_formulas_go_where_models_go():
    model = formula_model()
    again = unpack_model(*pack_model(model))
    points = random_points(model, 5)
    torch.testing.assert_close(again.expected(points), model.expected(points))
    table = yield_table(model, by="bin")
    assert table["summary, bin 1"]["interference"].value == pytest.approx(-1.0)
    joint = Joint(model, priors={"c": Uniform(-2.0, 2.0), "mu": Uniform(0.1, 3.0)}, pois=["c"])
    posterior = joint.at(t(47.0, 33.0, 40.0))
    starts = posterior.start.expand(4, -1) + 0.1 * torch.rand(4, len(posterior.names), dtype=torch.float64)
    value, gradient = posterior.value_and_gradient(starts)
    torch.testing.assert_close(gradient, torch.vmap(torch.func.grad(posterior.log_prob))(starts), rtol=1e-7, atol=1e-7)
    with pytest.raises(InputError, match="formula 'c\\*kappa', for which pyhf has no modifier"):
        model.to_workspace(poi="c")


def test_negative_yields_have_no_likelihood_and_no_formula_hides_it():
    model = BinnedModel(
        [Process("a", t(10.0), norm="1 - c"), Process("b", t(1.0), norm="1*k")],
        [Parameter("c", 0.0, (-5.0, 5.0)), Parameter("k", 1.0, (0.5, 2.0), Normal(1.0, 0.1))],
    )
    counts = t(3.0)
    assert float(model.log_prob(model.point(c=1.2), counts)) == -math.inf
    best = fit(model.at(counts))
    assert best.ok and float(model.expected(best.theta)) == pytest.approx(3.0, abs=1e-3)
    with pytest.raises(InputError, match="negative expected yield -1"):
        BinnedModel([Process("a", t(-1.0), norm="mu")], [Parameter("mu", 1.0)])
    with pytest.raises(InputError, match="did you mean 'mu'"):
        BinnedModel([Process("a", t(1.0), norm="mu_*2 + 1")], [Parameter("mu", 1.0)])


@pytest.mark.parametrize("path", [path for path in PUBLISHED if "ttz" in path.stem or "05_ewk_bkg" in path.stem])
def test_errors_by_groups_are_those_of_fits_without_them(path):
    model = BinnedModel.from_workspace(path)
    best = fit(model)
    free = [n for k, n in enumerate(best.names) if not best.fixed[k] and not best.at_bound[k]]
    poi = next(name for name in free if name.startswith("mu"))
    prefixes = sorted({name[:4] for name in free if not name.startswith("mu")})[:3]
    result = impacts(model, poi, fit=best, groups={p: [f"{p}*"] for p in prefixes}).groups
    assert result.names == prefixes
    still = {n: float(best[n]) for n in best.names if bool(best.at_bound[best.index(n)])}
    for prefix, members in zip(prefixes, result.members):
        assert members == [name for name in free if name.startswith(prefix)]
        without = fit(model, fixed=still | {name: float(best[name]) for name in members}).estimate(poi).error
        assert result[prefix] ** 2 == pytest.approx(result.total**2 - without**2, abs=1e-5 * result.total**2)
