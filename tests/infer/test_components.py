"""Components of errors against closed forms, refits with shifted auxiliary data, and the numbers of published files."""

import os
from pathlib import Path

import pytest
import torch
from random_models import random_workspace

from hepinf.binned.model import BinnedModel
from hepinf.binned.processes import Parameter, Process, Variation
from hepinf.core.errors import InputError
from hepinf.infer.components import components
from hepinf.infer.impacts import impacts
from hepinf.infer.mle import fit
from hepinf.infer.variance_parts import covariance_rows, variance_parts
from hepinf.stats.priors import Normal, Poisson
from hepinf.workspaces.schema import example_workspace

DATA = os.environ.get("HEPINF_DATA")
PUBLISHED = sorted((Path(DATA) / "workspaces").glob("*.json")) if DATA else []
TTBAR = [path for path in PUBLISHED if path.stem.startswith("ttbar")]
TTZ = [path for path in PUBLISHED if "ttz" in path.stem]


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def linear_model() -> BinnedModel:
    "Yields A theta, linear in every parameter: a signal, a free background, and three constrained shapes."
    background, signal = t(400.0, 300.0, 200.0, 150.0), t(5.0, 20.0, 60.0, 30.0)

    def along(*step):
        return Variation(background - t(*step), background + t(*step), 1.0)

    shapes = {
        "tilt": along(20.0, 5.0, -5.0, -10.0),
        "bump": along(0.0, 8.0, 12.0, 0.0),
        "level": along(3.0, 3.0, 3.0, 3.0),
    }
    constraints = {"tilt": 1.0, "bump": 0.7, "level": 1.5}
    return BinnedModel(
        [
            Process("signal", signal, norm="mu"),
            Process("background", background, variations=shapes),
            Process("free", t(10.0, 10.0, 10.0, 40.0), norm="norm"),
            Process("counted", t(30.0, 10.0, 5.0, 5.0), norm="side"),
        ],
        [
            Parameter("mu", 1.0, (-5.0, 5.0)),
            Parameter("norm", 1.0, (0.0, 5.0)),
            Parameter("side", 1.0, (1e-3, 5.0), Poisson(16.0, 16.0)),
            *(Parameter(name, 0.0, (-8.0, 8.0), Normal(0.0, width)) for name, width in constraints.items()),
        ],
    )


def test_a_linear_model_has_the_closed_form_of_least_squares():
    """At Asimov data theta = F^-1 (J^T W n + C a): every measurement has its own column of weights.

    Columns times standard deviations are the components, and all of them give the covariance F^-1.
    """
    model = linear_model()
    theta, names = model.nominal, model.parameter_names
    counts = model.asimov()
    slopes = torch.autograd.functional.jacobian(model.expected, theta)
    weights = 1 / counts
    precision = torch.tensor([0, 0, 16.0, 1.0, 0.7**-2, 1.5**-2], dtype=torch.float64)
    inverse = (slopes.T @ (weights[:, None] * slopes) + precision.diag()).inverse()
    by_counts = inverse @ slopes.T * weights * counts.sqrt()
    by_auxiliary = inverse * precision.sqrt()
    result = components(model.at(counts), ["mu", "norm"])
    assert result.names == ["side", "tilt", "bump", "level"]
    torch.testing.assert_close(result.values, by_auxiliary[:2, 2:], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(result.bins, by_counts[:2], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(result.covariances["total"], inverse[:2, :2], rtol=1e-8, atol=1e-14)
    torch.testing.assert_close(result.covariances["data"], (by_counts @ by_counts.T)[:2, :2], rtol=1e-8, atol=1e-14)
    single = components(model.at(counts), "mu")
    assert float(single["tilt"]) == pytest.approx(float(by_auxiliary[0, names.index("tilt")]), rel=1e-8)
    shares = single.by_process
    # of a linear model at its Asimov data nothing is left over: the constrained shapes belong to the background
    expected = by_auxiliary[0, 3:].square().sum() / inverse[0, 0]
    assert float(shares["background"]) == pytest.approx(float(expected), rel=1e-8)
    assert float(shares["counted"]) == pytest.approx(float(by_auxiliary[0, 2] ** 2 / inverse[0, 0]), rel=1e-8)
    assert float(shares["signal"]) == float(shares["free"]) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_squares_add_up_to_the_variance(seed):
    model = BinnedModel.from_workspace(random_workspace(seed))
    best = fit(model)
    assert bool(best.converged), best.problems
    result = components(model, "mu", fit=best)
    variance = best.error[best.index("mu")] ** 2
    if bool(variance.isnan()):
        assert result.total.isnan() and any("'mu' has no error by curvature" in line for line in result.problems)
        return
    total = result.values.square().sum() + result.data**2
    assert abs(float(total / variance) - 1) < 1e-10
    assert float(result.total**2 / variance) == pytest.approx(1, abs=1e-10)


def shifted_refits(model: BinnedModel, best, names: list[str], step: float) -> torch.Tensor:
    "Half the difference of the best mu for auxiliary data up and down by a part of their standard deviations."
    constraints = model.constraints
    spread = torch.ones_like(model.auxdata).index_copy(0, constraints.normal, constraints.sd)
    spread = spread.index_copy(0, constraints.counted, model.auxdata[constraints.counted].sqrt())
    rows = [model.constrained.index(model.parameter_names.index(name)) for name in names]
    moves = step * spread.diag()[rows]
    auxdata = torch.cat([model.auxdata + moves, model.auxdata - moves])
    shifted = fit(model.at(model.observed, auxdata).starting_at(best.theta))
    assert bool(shifted.converged.all()), shifted.problems
    up, down = shifted[model.poi].split(len(names))
    return (up - down) / (2 * step)


@pytest.mark.parametrize("path", TTBAR, ids=lambda path: path.stem)
def test_refits_with_shifted_auxiliary_data_find_the_components(path):
    "The variance by all constraints within 1 %: what is left is the third derivative along a whole deviation."
    model = BinnedModel.from_workspace(path)
    best = fit(model)
    result = components(model, fit=best)
    found = shifted_refits(model, best, result.names, 1.0)
    assert float(found.square().sum() / result.constraints**2) == pytest.approx(1, abs=0.01)
    strongest = result.values[0].abs().argsort(descending=True)[:20]
    near = shifted_refits(model, best, [result.names[k] for k in strongest.tolist()], 0.01)
    torch.testing.assert_close(near, result.values[0, strongest], rtol=0.02, atol=2e-4 * float(result.total))


def signal_of(model: BinnedModel) -> str:
    "The parameter of interest of a file, or its first free norm, or its first parameter."
    fixed = dict(zip(model.parameter_names, model.fixed))
    constrained = {model.parameter_names[k] for k in model.constrained}
    free = [name for name in model.parameter_names if name not in constrained and not fixed[name]]
    return model.poi or [*free, *model.parameter_names][0]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_small_shifts_of_auxiliary_data_find_the_components_of_every_file(path):
    "A tenth of a standard deviation: within 1 % of the variance, where no parameter is at a bound."
    model = BinnedModel.from_workspace(path)
    model.poi = signal_of(model)
    best = fit(model)
    result = components(model, fit=best)
    found = shifted_refits(model, best, result.names, 0.1)
    assert float(found.square().sum() / result.constraints**2) == pytest.approx(1, abs=0.01)
    if not any("raise log L" in line for line in result.problems):
        total = result.values.square().sum() + result.data**2
        assert abs(float(total) / float(best.error[best.index(model.poi)]) ** 2 - 1) < 1e-10


def test_refits_with_shifted_auxiliary_data_of_the_example():
    model = BinnedModel.from_workspace(example_workspace())
    best = fit(model)
    result = components(model, fit=best)
    near = shifted_refits(model, best, result.names, 1e-3)
    torch.testing.assert_close(near, result.values[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "path, numbers",
    [(path, (0.042369, 0.040672, 0.011872, 0.997483)) for path in TTBAR]
    + [(path, (0.133782, 0.105097, 0.082779, 1.003331)) for path in TTZ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_the_numbers_of_published_files(path, numbers):
    "Error, constraints, data, and the sum of squares with the counts bin by bin, computed once by other code."
    model = BinnedModel.from_workspace(path)
    best = fit(model)
    result = components(model, fit=best, groups={"everything": "*", "jets": ["JE*"]})
    found = (result.total, result.constraints, result.data)
    assert [float(x) for x in found] == pytest.approx(numbers[:3], abs=1e-6)
    assert float(result.total) == pytest.approx(float(best.error[best.index(model.poi)]), rel=1e-10)
    by_bins = result.bins.square().sum() + result.constraints**2
    assert float(by_bins / result.total**2) == pytest.approx(numbers[3], abs=1e-5)
    assert abs(float((result.values.square().sum() + result.data**2) / result.total**2) - 1) < 1e-10
    assert float(result["everything"]) == pytest.approx(float(result.constraints), rel=1e-12)
    assert 0 < float(result["jets"]) < float(result.constraints)
    assert any("'mu_ZZ'" in line for line in result.problems) == ("ttz" in path.stem)
    assert sum(map(float, result.by_process.values())) == pytest.approx(
        float((result.constraints / result.total) ** 2), abs=0.02
    )


@pytest.mark.parametrize("path", TTBAR, ids=lambda path: path.stem)
def test_a_component_is_the_impact_times_the_ratio_of_widths(path):
    model = BinnedModel.from_workspace(path)
    best = fit(model)
    result = components(model, fit=best)
    k, rows = best.index(model.poi), [best.index(name) for name in result.names]
    to_first_order = best.covariance[k, rows] / best.error[rows]
    torch.testing.assert_close(to_first_order * best.pull_errors[rows], result.values[0], rtol=1e-6, atol=1e-9)
    name = "ttbar_Shower_Model_Migration"
    assert float(result[name]) == pytest.approx(0.0071, abs=5e-5)
    assert float(best.pull_errors[best.index(name)]) == pytest.approx(0.473, abs=5e-4)
    fixed = {n: float(best[n]) for n in best.names if n != model.poi}
    assert float(fit(model, fixed=fixed).error[k]) < float(result.data) / 20  # no error of statistics


def test_batches_have_the_components_of_their_data_sets():
    model = BinnedModel.from_workspace(example_workspace())
    toys = model.at(*model.sample(model.point(mu=2.0).expand(3, 4, -1), seed=2))
    together = components(toys, ["mu", "jes"], groups={"all": "*"})
    assert together.values.shape[:3] == (3, 4, 2) and together["all"].shape == (3, 4, 2)
    alone = components(model.at(toys.counts[2, 1], toys.auxdata[2, 1]), ["mu", "jes"])
    torch.testing.assert_close(together.values[2, 1], alone.values, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(together.data[2, 1], alone.data, rtol=1e-5, atol=1e-8)
    assert len(together.rows()) == 1 + 3 + 1 + len(together.names)
    one = components(toys, "mu")
    assert one.data.shape == (3, 4) and one.by_process["background"].shape == (3, 4) and one.rows()


def test_a_parameter_at_a_bound_in_some_data_sets_has_no_component_there():
    content = example_workspace()
    content["measurements"][0]["config"]["parameters"] = [{"name": "jes", "bounds": [[-0.5, 0.5]]}]
    model = BinnedModel.from_workspace(content)
    counts = torch.stack([model.observed, model.observed])
    counts[1, model.channels["control_region"]] += 80.0
    result = components(model.at(counts), "mu", groups={"scale": ["jes"]})
    assert (
        result["jes"].isnan().tolist() == [False, True] and result["scale"][1] == 0 and not result.total.isnan().any()
    )
    assert any("at a bound" in line and "'jes'" in line for line in result.problems)


def test_noise_of_the_simulation_is_a_third_part():
    "With the covariance B of the score, the parts add up to H^-1 B H^-1."
    root = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curvature, simulation = root @ root.mT, 0.2 * torch.eye(5, dtype=torch.float64).expand(3, 5, 5)
    constraint = t(0.0, 0.1, 0.0, 0.2, 0.0).expand(3, 5)
    rows = covariance_rows(curvature, torch.zeros(3, 5, dtype=torch.bool), [0, 3])
    parts = variance_parts(rows, curvature, constraint, curvature + simulation, simulation)
    inverse = curvature.inverse()
    whole = inverse @ (curvature + simulation) @ inverse
    torch.testing.assert_close(parts["total"], whole[:, [0, 3]][:, :, [0, 3]])
    torch.testing.assert_close(parts["simulation"] + parts["data"] + parts["constraints"], parts["total"])
    torch.testing.assert_close(parts["simulation"], 0.2 * rows @ rows.mT)


def test_mistakes_are_named():
    model = BinnedModel.from_workspace(example_workspace())
    for options, message in (
        ({"poi": "muu"}, "did you mean 'mu'"),
        ({"poi": ["mu", "jess"]}, "did you mean 'jes'"),
        ({"poi": "mu", "fixed": {"mu": 1.0}}, "'mu' is fixed"),
        ({"poi": "mu", "groups": {"scale": "jec*"}}, "group 'scale'"),
        ({"poi": "mu", "groups": {"scale": ["jess"]}}, "did you mean 'jes'"),
    ):
        with pytest.raises(InputError, match=message):
            components(model, **options)
    with pytest.raises(InputError, match="no parameter of interest"):
        components(linear_model().at(linear_model().asimov()))
    with pytest.raises(InputError, match="did you mean 'jes'"):
        components(model)["jess"]
    free = components(model, groups={"signal": "mu"})
    assert any("group 'signal'" in line for line in free.problems)


def test_impacts_and_components_take_the_same_groups():
    model = BinnedModel.from_workspace(example_workspace())
    groups = {"statistics": ["mc*"], "scale": "jes"}
    by_impacts, by_components = impacts(model, groups=groups).groups, components(model, groups=groups).groups
    assert [sorted(m) for m in by_impacts.members] == [sorted(m) for m in by_components.values()]
