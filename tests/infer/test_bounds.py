"""No silent bound: every answer says which parameter ended at a default bound or at one of the file."""

import math

import pytest
import torch
from scipy import optimize, stats

from hepinf.binned.model import BinnedModel
from hepinf.binned.processes import Parameter, Process
from hepinf.core.errors import InputError
from hepinf.infer.components import components
from hepinf.infer.goodness import goodness_of_fit
from hepinf.infer.hypotest import discovery, hypotest
from hepinf.infer.impacts import impacts
from hepinf.infer.intervals import interval, profile
from hepinf.infer.mle import fit
from hepinf.infer.toy_limits import ToyScan
from hepinf.infer.upper_limit import upper_limit
from hepinf.workspaces.schema import example_workspace


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def weak_signal(**settings) -> BinnedModel:
    "s = 0.01, b = 50 with 3 %, n = 90: the best strength is 4000."
    background = [{"name": "b", "type": "normsys", "data": {"lo": 0.97, "hi": 1.03}}]
    signal = {"name": "s", "data": [0.01], "modifiers": [{"name": "mu", "type": "normfactor", "data": None}]}
    return BinnedModel.from_workspace(
        {
            "version": "1.0.0",
            "channels": [{"name": "c", "samples": [signal, {"name": "b", "data": [50.0], "modifiers": background}]}],
            "observations": [{"name": "c", "data": [90.0]}],
            "measurements": [
                {"name": "m", "config": {"poi": "mu", "parameters": [{"name": "mu", **settings}] if settings else []}}
            ],
        }
    )


ANSWERS = {
    "fit": lambda model, **o: fit(model, **o),
    "interval": lambda model, **o: interval(model, "mu", **o),
    "profile": lambda model, **o: profile(model, "mu", [5.0, 8.0], **o),
    "hypotest": lambda model, **o: hypotest(model, 5.0, **o),
    "discovery": lambda model, **o: discovery(model, **o),
    "upper_limit": lambda model, **o: upper_limit(model, **o),
    "discovery by toys": lambda model, **o: discovery(model, toys=50, **o),
    "impacts": lambda model, **o: impacts(model, **o),
    "components": lambda model, **o: components(model, **o),
    "goodness_of_fit": lambda model, **o: goodness_of_fit(model, **o),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_default_bound_is_named_and_can_be_moved(name):
    sentence = "'mu' ended at 10, its default upper bound"
    assert any(sentence in line for line in ANSWERS[name](weak_signal()).problems)
    wide = ANSWERS[name](weak_signal(), bounds={"mu": (0.0, 1e5)})
    assert not any("bound" in line for line in wide.problems), wide.problems


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "fit"])
def test_a_bound_of_the_file_is_named(name):
    lines = ANSWERS[name](weak_signal(bounds=[[0.0, 20.0]])).problems
    assert any("'mu' ended at 20, the file's upper bound" in line for line in lines)


def test_the_numbers_beyond_the_default_range():
    wide, model = {"bounds": {"mu": (0.0, 1e5)}}, weak_signal()

    def minus_log(mu, alpha):  # up to constants
        nu = 0.01 * mu + 50 * (1.03**alpha if alpha > 0 else 0.97**-alpha)
        return nu - 90 * math.log(nu) + alpha**2 / 2

    null = optimize.minimize_scalar(lambda a: minus_log(0.0, a), bounds=(-5, 5), method="bounded").fun
    z = math.sqrt(2 * (null - minus_log(4000.0, 0.0)))
    # the interpolation of normsys differs from the exponential inside of one standard deviation
    assert abs(float(discovery(model, **wide).significance) - z) < 0.02 and abs(z - 4.95) < 0.02
    limits = upper_limit(model, **wide)
    assert limits.ok and abs(float(limits.observed) / 5669 - 1) < 2e-3
    ends = interval(model, "mu", **wide)
    assert abs(float(ends.low) / 3072 - 1) < 1e-3 and abs(float(ends.high) / 4993 - 1) < 1e-3


def test_fixed_parameters_by_name_in_every_answer():
    model = BinnedModel.from_workspace(example_workspace())
    statistic = 2 * (fit(model, fixed={"jes": 0.5}).log_prob - fit(model, fixed={"jes": 0.5, "mu": 0.0}).log_prob)
    found = discovery(model, fixed={"jes": 0.5})
    assert abs(float(found.q0) - float(statistic)) < 1e-6
    narrow, free = interval(model, "mu", fixed=["jes"]), interval(model, "mu")
    assert float(narrow.high - narrow.low) < float(free.high - free.low)
    assert float(upper_limit(model, fixed={"jes": 0.0}).observed) < float(upper_limit(model).observed)
    assert "jes" not in impacts(model, fixed=["jes"]).names
    assert goodness_of_fit(model, fixed={"jes": 0.0}).chi2 >= goodness_of_fit(model).chi2


def test_unknown_names_are_refused():
    model = BinnedModel.from_workspace(example_workspace())
    for options in ({"bounds": {"mus": (0, 1)}}, {"fixed": ["mus"]}, {"bounds": {"mu": (1, 0)}}):
        with pytest.raises(InputError):
            interval(model, "jes", **options)


def test_a_strength_of_zero_is_an_answer():
    model = BinnedModel([Process("s", t(5.0), norm="mu"), Process("b", t(10.0))], [Parameter("mu", 1.0, (0.0, 10.0))])
    assert fit(model.at(t(8.0))).ok and interval(model.at(t(8.0)), "mu").ok
    content = example_workspace()
    content["observations"][0]["data"] = [40.0, 10.0]
    assert fit(BinnedModel.from_workspace(content))["mu"] == 0 and fit(BinnedModel.from_workspace(content)).ok


def test_a_deficit_has_no_significance_by_toys():
    model = BinnedModel([Process("s", t(5.0), norm="mu"), Process("b", t(10.0))], [Parameter("mu", 1.0, (0.0, 10.0))])
    assert float(discovery(model.at(t(5.0)), poi="mu", toys=200).significance) == 0.0


def exact_limits(n, b, s, level=0.95):
    "Observed and expected limits of a counting experiment by Poisson sums."
    seen = [n, *stats.poisson.ppf(stats.norm.cdf([-2, -1, 0, 1, 2]), b)]

    def excess(mu, k):
        return stats.poisson.cdf(k, b + mu * s) / stats.poisson.cdf(k, b) - (1 - level)

    return [optimize.brentq(excess, 1e-9, 1e4, args=(k,)) for k in seen]


def test_limits_by_toys_are_those_of_poisson_sums():
    generator, pulls, models = torch.Generator().manual_seed(5), [], 10
    for k in range(models):
        b, s = (float(x) for x in torch.rand(2, generator=generator) * t(20.0, 8.0) + t(0.5, 0.5))
        n = float(torch.poisson(t(b), generator=generator))
        model = BinnedModel(
            [Process("s", t(s), norm="mu"), Process("b", t(b))], [Parameter("mu", 1.0, (0.0, math.inf))]
        )
        limit = upper_limit(model.at(t(n)), poi="mu", toys=500, seed=k)
        assert limit.ok and bool(limit.found.all())
        found = torch.cat([limit.observed[None], limit.expected])
        pulls.append((found - t(*exact_limits(n, b, s))) / limit.error)
    pulls = torch.cat(pulls)
    # six pulls at a time are correlated: the largest of 60 normal numbers is below 4.5 with p > 0.999, and the mean of
    # their squares varies by sqrt(2 / models) at most
    assert float(pulls.abs().max()) < 4.5 and float(pulls.square().mean()) < 1 + 3 * math.sqrt(2 / models)


def test_limits_by_toys_at_own_strengths_flag_what_lies_outside():
    model = BinnedModel(
        [Process("s", t(5.0), norm="mu"), Process("b", t(4.0))], [Parameter("mu", 1.0, (0.0, math.inf))]
    )
    limit = upper_limit(model.at(t(4.0)), poi="mu", toys=ToyScan(500, points=[0.6, 1.0, 1.4]), seed=1)
    found, exact = limit.found.tolist(), exact_limits(4, 4.0, 5.0)
    assert found == [x < 1.4 for x in exact], (found, exact)
    assert any("expected at +2 sigma: not found" in line for line in limit.problems)
    with pytest.raises(InputError):
        ToyScan(500, points=[math.inf])


def test_limits_where_the_band_is_wide():
    # s = 4 with 100 %, b = 0.1, nothing seen: the band spans three decades, and no strength excludes the upward ones
    signal = {
        "name": "s",
        "data": [4.0],
        "modifiers": [
            {"name": "mu", "type": "normfactor", "data": None},
            {"name": "us", "type": "shapesys", "data": [4.0]},
        ],
    }
    background = [{"name": "ub", "type": "normsys", "data": {"lo": 0.3, "hi": 1.8}}]
    model = BinnedModel.from_workspace(
        {
            "version": "1.0.0",
            "channels": [{"name": "c", "samples": [signal, {"name": "b", "data": [0.1], "modifiers": background}]}],
            "observations": [{"name": "c", "data": [0.0]}],
            "measurements": [
                {"name": "m", "config": {"poi": "mu", "parameters": [{"name": "mu", "bounds": [[0, 1000]]}]}}
            ],
        }
    )
    limit = upper_limit(model, toys=ToyScan(300, most=25), seed=2)
    # bisection of the same test with 2000 toys: 2.4
    assert abs(float(limit.observed) - 2.4) < 3 * float(limit.error[0]) and float(limit.observed) < 5
    assert limit.found.tolist()[:4] == [True] * 4
