"""The bound of pruning, kept by refits, on models with closed forms and on every published file."""

import json
import math
import os
from functools import cache
from pathlib import Path

import pyhf
import pytest
import torch
from random_models import random_workspace

from hepinf.binned.model import BinnedModel
from hepinf.binned.processes import Parameter, Process, Variation
from hepinf.core.errors import InputError
from hepinf.infer.mle import fit
from hepinf.infer.pruning import effects, normal_limit, predicted_effects, predicted_order, prune_parameters
from hepinf.infer.smaller_model import smaller_model
from hepinf.infer.upper_limit import upper_limit
from hepinf.stats.priors import Normal
from hepinf.workspaces.schema import example_workspace

DATA = os.environ.get("HEPINF_DATA")
PUBLISHED = sorted((Path(DATA) / "workspaces").glob("*.json")) if DATA else []
LEAST = {"atlas_ttz_3l": 100, "ttbar_ljets_inclusive_pruned": 35}


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def linear_model() -> BinnedModel:
    "A signal and a background whose level is shifted by ten parameters of growing importance."
    background, signal = t(4000.0, 3000.0, 2000.0), t(10.0, 40.0, 80.0)
    sizes = {f"shift_{k}": 0.5 * 1.6**k for k in range(10)}
    shapes = {name: Variation(background - size, background + size, 1.0) for name, size in sizes.items()}
    return BinnedModel(
        [Process("signal", signal, norm="mu"), Process("background", background, variations=shapes)],
        [Parameter("mu", 1.0, (-20.0, 20.0)), *(Parameter(n, 0.0, (-9.0, 9.0), Normal(0.0, 1.0)) for n in sizes)],
    )


def test_the_limit_is_the_one_of_a_counting_experiment():
    "A large background makes the signal normal; its CLs limit by formula is the one of the full machinery."
    model = BinnedModel(
        [Process("s", t(100.0), norm="mu"), Process("b", t(1e6))], [Parameter("mu", 1.0, (-50.0, 500.0))]
    )
    for n in (1e6, 1e6 + 1500.0):
        estimate = fit(model.at(t(n))).estimate("mu")
        full = float(upper_limit(model.at(t(n)), poi="mu").observed)
        assert float(normal_limit(t(estimate.value), t(estimate.error))) == pytest.approx(full, rel=5e-3)


def test_the_prediction_is_exact_for_a_normal_likelihood():
    "Conditional mean and variance of a normal distribution; also of correlated parameters that compensate each other."
    root = torch.randn(12, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    precision = root @ root.mT + torch.eye(12)
    best, centre = 0.2 * root[0], torch.zeros(12).double()
    covariance, before = precision.inverse(), None
    before = torch.stack([best[0], covariance[0, 0].sqrt()])
    order = predicted_order(covariance, best - centre, 0, range(1, 12), before, math.inf)
    for n in range(len(order) + 1):
        held, free = order[:n], [k for k in range(12) if k not in order[:n]]
        block = precision[free][:, free]
        # the maximum over the free ones of -(theta - best)^T P (theta - best) / 2 with the held at their centres
        moved = torch.linalg.solve(block, precision[free][:, held] @ (best - centre)[held])
        expected = effects(before, best[0] + moved[0], block.inverse()[0, 0].sqrt())
        torch.testing.assert_close(predicted_effects(covariance, best - centre, 0, held, before), expected)


def test_a_linear_model_is_pruned_from_its_small_end():
    """All shifts are one direction, so dropping a set takes its squares from the variance of the level."""
    model = linear_model()
    result = prune_parameters(model, "mu")
    dropped = sorted(int(name[-1]) for name in result.dropped)
    assert dropped == list(range(len(dropped))) and 0 < len(dropped) < 10
    sizes = [0.5 * 1.6**k for k in range(10)]
    nu, slope = model.asimov(), t(10.0, 40.0, 80.0)

    def error(left: list[int]) -> float:
        covariance = nu.diag() + sum(sizes[k] ** 2 for k in left) * torch.ones(3, 3)
        return float((slope @ torch.linalg.solve(covariance, slope)) ** -0.5)

    everything, some = error(list(range(10))), error(list(range(len(dropped), 10)))
    assert result.before.error == pytest.approx(everything, rel=1e-6)
    assert result.found["error"] == pytest.approx(some / everything - 1, abs=1e-7)
    assert result.predicted["error"] == pytest.approx(result.found["error"], abs=1e-6)
    assert result.found["value"] == pytest.approx(0, abs=1e-5)  # Asimov data pull nothing
    more = error(list(range(len(dropped) + 1, 10)))
    limits = [float(normal_limit(t(1.0), t(s))) for s in (everything, more)]
    assert max(1 - more / everything, (limits[0] - limits[1]) / everything) > 0.01  # one more breaks the bound


def test_what_the_data_pull_is_kept():
    "2 delta log L of dropping it would be more than 4."
    model = linear_model()
    pulled = model.expected(model.point(shift_9=20.0))
    result = prune_parameters(model.at(pulled), "mu", by="observed", bound=10.0)
    assert "shift_9" not in result.dropped and result.lost <= 4 and max(map(abs, result.found.values())) <= 10
    assert set(prune_parameters(model.at(pulled), "mu", bound=10.0).dropped) == {f"shift_{k}" for k in range(10)}


def signal_of(model: BinnedModel) -> str:
    "The parameter of interest of a file, or its first free norm, or its first parameter."
    constrained = {model.parameter_names[k] for k in model.constrained}
    free = [n for n, fixed in zip(model.parameter_names, model.fixed) if n not in constrained and not fixed]
    return model.poi or [*free, *model.parameter_names][0]


@cache
def published(path: Path, by: str):
    "A published model, and what is left of it."
    model = BinnedModel.from_workspace(path)
    return model, prune_parameters(model, signal_of(model), by=by)


def refitted(result, counts) -> torch.Tensor:
    "The effects once more, from the model that was returned and nothing else."
    best = fit(result.model.at(counts))
    k = best.index(result.poi)
    return effects(t(result.before.value, result.before.error), best.theta[k], best.error[k]).abs().max()


@pytest.mark.parametrize("by", ["asimov", "observed"])
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_the_bound_is_kept_on_every_published_file(path, by):
    model, result = published(path, by)
    assert max(map(abs, result.found.values())) <= 0.01 and result.lost <= 4
    assert len(result.dropped) >= LEAST.get(path.stem, 0)
    gone = set(model.parameter_names) - set(result.model.parameter_names)
    held = {n for n, fixed in zip(result.model.parameter_names, result.model.fixed) if fixed}
    assert set(result.dropped) <= gone | held and not set(result.dropped) & (held & gone)
    if result.dropped:
        counts, point = model.observed, model.nominal.clone()
        if by == "asimov":
            point[model.constrained] = model.constraint_measurements(model.auxdata)[0]
            counts = model.expected(point)
        assert float(refitted(result, counts)) <= 0.01
        assert BinnedModel.from_workspace(result.workspace).parameter_names == result.model.parameter_names


@pytest.mark.parametrize("path", [path for path in PUBLISHED if path.stem in LEAST], ids=lambda path: path.stem)
def test_the_smaller_workspace_is_the_same_model_to_pyhf(path):
    "Expected events and log L of the pruned file at a random point, and its parameters."
    model, result = published(path, "observed")
    theirs = pyhf.Workspace(json.loads(json.dumps(result.workspace))).model()
    ours = result.model
    order = [ours.parameter_names.index(name) for name in theirs.config.par_names]
    point = ours.nominal + 0.1 * torch.randn(
        len(order), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    point = torch.where(torch.tensor(ours.fixed), ours.nominal, point)
    full = {
        **dict(zip(model.parameter_names, model.nominal.tolist())),
        **dict(zip(ours.parameter_names, point.tolist())),
    }
    torch.testing.assert_close(ours.expected(point), model.expected(model.nominal.new_tensor(list(full.values()))))
    expected = theirs.expected_actualdata(point[order].tolist())
    torch.testing.assert_close(
        torch.as_tensor(expected, dtype=torch.float64), ours.expected(point), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_is_kept_on_random_workspaces(seed):
    "Kinks, empty bins, and parameters at bounds."
    model = BinnedModel.from_workspace(random_workspace(seed))
    for by in ("asimov", "observed"):
        result = prune_parameters(model, bound=0.1, by=by)
        assert max(map(abs, result.found.values())) <= 0.1
        if math.isnan(result.before.error):
            assert result.dropped == [] and any("nothing is dropped" in line for line in result.problems)
        elif by == "observed" and result.dropped:
            assert float(refitted(result, model.observed)) <= 0.1 + 1e-6


def test_bins_of_a_statistical_uncertainty_go_one_by_one():
    content = example_workspace()
    model = BinnedModel.from_workspace(content)
    small = smaller_model(model, ["mc[0]"])
    (modifier,) = [
        m
        for channel in small.workspace["channels"]
        for sample in channel["samples"]
        for m in sample["modifiers"]
        if m["name"] == "mc"
    ]
    assert modifier["data"] == [0.0, 1.5] and small.fixed == [False, False, True, False]
    assert content == example_workspace() and "mc[0]" not in smaller_model(model, ["mc[0]", "mc[1]"]).parameter_names
    theirs = pyhf.Workspace(small.workspace).model()
    assert theirs.config.suggested_fixed() == [small.fixed[small.index(name)] for name in theirs.config.par_names]


def test_a_parameter_off_its_centre_is_kept():
    "Leaving it out of the workspace would not hold it where it is."
    content = example_workspace()
    content["measurements"][0]["config"]["parameters"] = [{"name": "jes", "auxdata": [0.3]}]
    result = prune_parameters(BinnedModel.from_workspace(content), bound=10.0)
    assert "jes" not in result.dropped and "At a bound or off its centre, and kept: 'jes'." in result.notes
    assert set(result.dropped) == {"mc[0]", "mc[1]"}


def test_nothing_is_dropped_where_the_parameter_of_interest_has_no_error():
    content = example_workspace()
    content["observations"][0]["data"] = [40.0, 10.0]
    result = prune_parameters(BinnedModel.from_workspace(content), by="observed")
    assert not result.ok and result.dropped == [] and result.workspace == content
    assert any("'mu' has no error: nothing is dropped" in line for line in result.problems)
    assert len(result.rows()) == 5


def test_mistakes_are_named():
    model = BinnedModel.from_workspace(example_workspace())
    held = BinnedModel.from_workspace(
        example_workspace() | {"measurements": [{"name": "m", "config": {"poi": "mu", "parameters": [
            {"name": "mu", "fixed": True}]}}]}
    )  # fmt: skip
    for source, options, message in (
        (model, {"poi": "muu"}, "did you mean 'mu'"),
        (held, {}, "'mu' is fixed"),
        (model, {"bound": 0.0}, "bound: a positive number"),
        (model, {"bound": -0.1}, "bound: a positive number"),
        (model, {"bound": math.nan}, "bound: a positive number"),
        (model, {"by": "azimov"}, "did you mean 'asimov'"),
        (linear_model(), {}, "no parameter of interest"),
        (linear_model(), {"poi": "mu", "by": "observed"}, "no observation"),
        (model.at().toys(model.nominal.expand(3, -1)), {}, "one data set, not 3"),
        (lambda theta: theta, {}, "needs a binned model"),
    ):
        with pytest.raises(InputError, match=message):
            prune_parameters(source, **options)
