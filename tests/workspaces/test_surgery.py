"""Surgery by name: pyhf finds the same likelihood in what comes out; what was cut out is what the formula says."""

import copy
import json
import logging
import math
import random

import numpy as np
import pyhf
import pytest
import torch
from test_workspaces import PUBLISHED, in_pyhf, random_points, random_workspace

from hepinf.binned.model import BinnedModel
from hepinf.core.errors import InputError
from hepinf.infer.mle import fit
from hepinf.workspaces.blinding import mask
from hepinf.workspaces.combination import combine
from hepinf.workspaces.correlation import correlate, decorrelate
from hepinf.workspaces.measurement import read_workspace
from hepinf.workspaces.rebinning import rebin
from hepinf.workspaces.schema import example_workspace
from hepinf.workspaces.surgery import names_of, prune, rename, select, with_data

pytestmark = pytest.mark.filterwarnings("ignore")
SEEDS = range(8)


@pytest.fixture(autouse=True)
def quiet_pyhf(caplog):
    "pyhf tells its log about every file that it refuses."
    caplog.set_level(logging.CRITICAL + 1, "pyhf")


def observed(workspace):
    return {entry["name"]: entry["data"] for entry in workspace["observations"]}


def poisson(counts, nu):
    "ln Pois of each bin; 0 where nothing is expected and seen."
    return torch.special.xlogy(counts, nu) - nu - torch.lgamma(counts + 1)


def named(model, values):
    "The point of a model at values by name, nominal elsewhere."
    return model.point(**{name: value for name, value in values.items() if name in model.parameter_names})


def assert_pyhf_agrees(workspace, seed=0, points=4):
    "For every measurement: the file is within pyhf's schema, and both find the same likelihood."
    spec = pyhf.Workspace(json.loads(json.dumps(workspace)))
    for entry in workspace["measurements"]:
        ours = BinnedModel.from_workspace(workspace, measurement=entry["name"])
        theirs, data = in_pyhf(spec, entry["name"])
        assert ours.parameter_names == theirs.config.par_names
        assert ours.nominal.tolist() == theirs.config.suggested_init()
        assert ours.fixed == theirs.config.suggested_fixed()
        for theta in random_points(ours, points, seed):
            expected = torch.tensor(theirs.expected_actualdata(theta.tolist()))
            if (expected >= 0).all():
                reference = float(theirs.logpdf(theta.tolist(), data)[0])
                assert float(ours.log_prob(theta, ours.observed)) == pytest.approx(reference, rel=1e-9)


def operations(workspace, rng):
    "Every operation that has something to do in a workspace, on names drawn at random."
    names = names_of(workspace)
    channel, kind = rng.choice(names["channel"]), rng.choice(names["modifier type"])
    modifier = rng.choice(names["modifier"])
    yield "select", lambda: select(workspace, channels=channel)
    yield "select types", lambda: select(workspace, modifier_types=[kind])
    yield "prune", lambda: prune(workspace, modifiers=modifier, channels=rng.sample(names["channel"], 1)[:-1])
    yield "prune types", lambda: prune(workspace, modifier_types=kind)
    yield "mask", lambda: mask(workspace, channel)
    renamed = {kind: {name: f"{name} new" for name in names[kind]} for kind in ("channel", "sample", "measurement")}
    parameters = {name: f"new {name}" for name in names["modifier"] if name != "lumi"}
    yield (
        "rename",
        lambda: rename(
            workspace,
            channels={name: f"{rng.random()}" for name in names["channel"]},
            samples=renamed["sample"],
            modifiers=parameters,
            measurements=renamed["measurement"],
        ),
    )
    yield "decorrelate", lambda: decorrelate(workspace, modifier)
    yield "decorrelate samples", lambda: decorrelate(workspace, modifier, by="sample")
    alphas = [name for name in names["modifier"] if name in ("JES", "b-tag", "alpha_x")]
    if alphas:
        yield "correlate", lambda: correlate(workspace, alphas, into=alphas[0])
    yield "rebin", lambda: rebin(workspace, channel, len(observed(workspace)[channel]))
    yield (
        "with_data",
        lambda: with_data(workspace, {channel: [rng.randint(0, 50) for _ in observed(workspace)[channel]]}),
    )


# what the random workspaces have and an operation rightly refuses
REFUSED = (
    "no modifier would be left",
    "must be named 'lumi'",
    "no channel would be left",
    "two parameters are needed",
    "its sigmas are those of a sum of samples",
    "cannot be merged",
    "differ in bins that become one",
    "shares the bins of the",
    "bins in another channel",
    "would act on it twice",
)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_comes_out_is_a_workspace_in_pyhf_too(seed):
    workspace, rng = random_workspace(seed), random.Random(seed)
    before, done = copy.deepcopy(workspace), 0
    for what, operation in operations(workspace, rng):
        try:
            changed = operation()
        except InputError as error:
            assert any(text in str(error) for text in REFUSED), f"{what}: {error}"
            continue
        assert workspace == before, f"{what} has changed what went in"
        assert changed["version"] == workspace["version"]
        assert_pyhf_agrees(changed, seed)
        done += 1
    assert done >= 4


def assert_masked(workspace, channel, points=6, seed=0):
    "The masked model has the parameters of the full one, and its likelihood lacks the Poisson terms of the channel."
    for entry in workspace["measurements"]:
        full, masked = (
            BinnedModel.from_workspace(one, measurement=entry["name"]) for one in (workspace, mask(workspace, channel))
        )
        assert masked.parameter_names == full.parameter_names
        assert torch.equal(masked.nominal, full.nominal) and torch.equal(masked.bounds, full.bounds)
        bins = full.channels[channel]
        for theta in random_points(full, points, seed):
            nu, whole = full.expected(theta), full.log_prob(theta, full.observed)
            if (nu >= 0).all() and torch.isfinite(whole):
                expected = whole - poisson(full.observed[bins], nu[bins]).sum()
                torch.testing.assert_close(masked.log_prob(theta, masked.observed), expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_masked_channel_leaves_its_poisson_terms_and_nothing_else(seed):
    workspace = random_workspace(seed)
    if len(workspace["channels"]) > 1:
        assert_masked(workspace, workspace["channels"][0]["name"], seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_selected_channels_are_that_part_of_the_likelihood(seed):
    "Their Poisson terms, and the constraints of the parameters that they have."
    workspace, rng = random_workspace(seed), random.Random(seed)
    chosen = rng.sample(names_of(workspace)["channel"], rng.randint(1, len(workspace["channels"])))
    try:
        part = select(workspace, channels=chosen)
    except InputError as error:
        assert "no modifier would be left" in str(error)
        return
    full, ours = BinnedModel.from_workspace(workspace), BinnedModel.from_workspace(part)
    theirs, data = in_pyhf(pyhf.Workspace(part))
    places = [k for name in ours.channels for k in range(*full.channels[name].indices(full.yields.bins))]
    shared = [name for name in ours.parameter_names if "[" not in name]
    for theta in random_points(full, 4, seed):
        values = {name: float(theta[full.index(name)]) for name in shared}
        nu = full.expected(named(full, values))[places]
        point = named(ours, values)
        torch.testing.assert_close(ours.expected(point), nu, rtol=1e-12, atol=1e-12)
        if (nu >= 0).all():
            aux = np.array(data[len(nu) :])
            constraint = float(theirs.constraint_logpdf(aux, point.numpy())) if len(aux) else 0.0
            expected = float(poisson(full.observed[places], nu).sum()) + constraint
            assert float(ours.log_prob(point, ours.observed)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_pyhf_prunes_and_renames_the_same(seed):
    workspace, rng = random_workspace(seed), random.Random(seed)
    names, theirs = names_of(workspace), pyhf.Workspace(workspace)
    some = {
        "modifiers": [rng.choice(names["modifier"])],
        "modifier_types": [rng.choice(sorted(dict(theirs.modifiers).values()))],
    }
    try:
        pruned = prune(workspace, **some)
    except InputError as error:
        assert "no modifier would be left" in str(error)
    else:
        reference = theirs.prune(**some)
        assert pruned["channels"] == reference["channels"] and pruned["observations"] == reference["observations"]
        left = set(names_of(pruned)["modifier"]) | {"pruned away"}
        for ours, other in zip(pruned["measurements"], reference["measurements"], strict=True):
            wanted = [entry for entry in other["config"]["parameters"] if entry["name"] in left]
            assert ours["config"]["parameters"] == wanted
    new = {name: f"{name}_2" for name in names["modifier"] if name != "lumi"}
    renaming = {"modifiers": new, "samples": {name: name.upper() for name in names["sample"]}}
    renaming |= {"channels": {name: f"{name}_2" for name in names["channel"]}}
    assert rename(workspace, **renaming) == dict(theirs.rename(**renaming))


@pytest.mark.parametrize("seed", SEEDS)
def test_correlation_undoes_decorrelation(seed):
    workspace = random_workspace(seed)
    for name in names_of(workspace)["modifier"]:
        for by in ("channel", "sample"):
            try:
                apart = decorrelate(workspace, name, by)
            except InputError as error:
                assert any(text in str(error) for text in REFUSED), error
                continue
            news = set(names_of(apart)["modifier"]) - set(names_of(workspace)["modifier"])
            at_one = BinnedModel.from_workspace(workspace)
            split = BinnedModel.from_workspace(apart)
            torch.testing.assert_close(
                split.expected(split.nominal), at_one.expected(at_one.nominal), rtol=1e-12, atol=1e-12
            )
            try:
                again = correlate(apart, sorted(news), into=name)
            except InputError as error:
                assert len(news) == 1 or "belongs to its own bins" in str(error) or "' has " in str(error), error
            else:
                assert again["channels"] == workspace["channels"]
                for ours, other in zip(again["measurements"], workspace["measurements"], strict=True):
                    if BinnedModel.from_workspace(workspace, measurement=ours["name"]).poi:
                        assert ours == other


def test_a_shared_staterror_is_cut_between_channels():
    workspace = example_workspace()
    control = workspace["channels"][1]["samples"][0]
    control["modifiers"].append({"name": "mc", "type": "staterror", "data": [4.0]})
    settings = [{"name": "mc", "inits": [1.3, 1.1, 1.2]}]  # control region first, as in the alphabet
    workspace["measurements"][0]["config"]["parameters"] = settings
    apart = read_workspace(decorrelate(workspace, "mc")).parameters
    assert apart["mc_control_region"].inits == [1.3] and apart["mc_signal_region"].inits == [1.1, 1.2]
    selected = read_workspace(select(workspace, channels="signal_region")).parameters
    assert selected["mc"].inits == [1.1, 1.2]
    moved = read_workspace(rename(workspace, channels={"control_region": "z"})).parameters
    assert moved["mc"].inits == [1.1, 1.2, 1.3] and moved["mc"].sigmas == [0.04, 0.075, 0.02]


def test_two_normsys_on_one_sample_multiply():
    "Exact at 0 and beyond 1; in between the polynomial is that of the product."
    workspace = example_workspace()
    background = workspace["channels"][0]["samples"][1]
    for name, low, high in (("a", 0.9, 1.15), ("b", 0.8, 1.1)):
        background["modifiers"].append({"name": name, "type": "normsys", "data": {"lo": low, "hi": high}})
    for name, shift in (("a", 1.0), ("b", -2.0)):
        data = {"hi_data": [y + shift for y in background["data"]], "lo_data": [y - 0.5 for y in background["data"]]}
        background["modifiers"].append({"name": name, "type": "histosys", "data": data})
    apart = BinnedModel.from_workspace(workspace)
    one = BinnedModel.from_workspace(correlate(workspace, ["a", "b"], into="ab"))
    for alpha in (-3.0, -1.0, 0.0, 1.0, 2.5):
        both = apart.expected(apart.point(a=alpha, b=alpha))
        torch.testing.assert_close(one.expected(one.point(ab=alpha)), both, rtol=1e-12, atol=0)
    alpha = torch.linspace(-1, 1, 41, dtype=torch.float64)
    off = max(
        float((one.expected(one.point(ab=a)) / apart.expected(apart.point(a=a, b=a)) - 1).abs().max())
        for a in alpha.tolist()
    )
    assert 1e-6 < off < 5e-3
    assert_pyhf_agrees(correlate(workspace, ["a", "b"], into="ab"))


@pytest.mark.parametrize("seed", SEEDS)
def test_independent_measurements_add_and_pyhf_combines_the_same(seed):
    first, second = random_workspace(seed), random_workspace(1000 + seed)
    names = names_of(second)
    second = rename(
        prune(second, modifier_types=[kind for kind in names["modifier type"] if kind == "lumi"])
        if len(names["modifier type"]) > 1
        else second,
        channels={name: f"{name} second" for name in names["channel"]},
    )
    second = rename(second, modifiers={n: f"{n} second" for n in names_of(second)["modifier"] if n != "lumi"})
    second = with_one_measurement(second)
    first = with_one_measurement(first)
    both = combine(first, second, join="left outer")
    models = [BinnedModel.from_workspace(one) for one in (first, second, both)]
    assert_pyhf_agrees(both, seed)
    if "lumi" in models[0].parameter_names and "lumi" in models[1].parameter_names:
        return
    theta = random_points(models[2], 2, seed)[1]
    values = dict(zip(models[2].parameter_names, theta.tolist()))
    parts = [model.log_prob(named(model, values), model.observed) for model in models]
    if all(map(math.isfinite, parts)):
        torch.testing.assert_close(parts[0] + parts[1], parts[2], rtol=1e-10, atol=1e-9)
    reference = pyhf.Workspace.sorted(
        pyhf.Workspace.combine(pyhf.Workspace(first), pyhf.Workspace(second), join="outer")
    )
    ours = pyhf.Workspace.sorted(both)
    assert ours["channels"] == reference["channels"] and ours["observations"] == reference["observations"]


def with_one_measurement(workspace):
    "The first of its measurements, by one name, with a common parameter of interest."
    entry = copy.deepcopy(workspace["measurements"][0])
    entry["name"], entry["config"]["poi"] = "fit", ""
    entry["config"]["parameters"] = [s for s in entry["config"]["parameters"] if s["name"] != "pruned away"]
    return {**workspace, "measurements": [entry]}


def test_a_shared_constraint_counts_once():
    workspace = example_workspace()
    second = rename(workspace, channels={"signal_region": "SR", "control_region": "CR"}, modifiers={"mc": "mc_2"})
    models = [BinnedModel.from_workspace(one) for one in (workspace, second, combine(workspace, second))]
    values = {"mu": 1.2, "jes": 0.7, "mc[0]": 1.02, "mc_2[1]": 0.9}
    parts = [float(model.log_prob(named(model, values), model.observed)) for model in models]
    constraint = -0.5 * 0.7**2 - 0.5 * math.log(2 * math.pi)
    assert parts[2] == pytest.approx(parts[0] + parts[1] - constraint, rel=1e-12)


def test_parts_combine_to_the_whole():
    workspace = example_workspace()
    parts = [select(workspace, channels=name) for name in ("signal_region", "control_region")]
    assert combine(*parts) == workspace


@pytest.mark.parametrize("seed", SEEDS)
def test_merged_bins_expect_the_sum_and_are_poisson(seed):
    "Exact for all parameters but those of single bins; these are at 1 here."
    workspace = random_workspace(seed)
    for channel, counts in observed(workspace).items():
        try:
            coarse = rebin(workspace, channel, len(counts))
        except InputError as error:
            assert any(text in str(error) for text in REFUSED), error
            continue
        fine_model, one = BinnedModel.from_workspace(workspace), BinnedModel.from_workspace(coarse)
        scalars = [name for name in fine_model.parameter_names if "[" not in name]
        for theta in random_points(fine_model, 3, seed):
            values = {name: float(theta[fine_model.index(name)]) for name in scalars}
            per_bin = [name for name in fine_model.parameter_names if "[" in name]
            fine = fine_model.expected(named(fine_model, values | dict.fromkeys(per_bin, 1.0)))
            fine = fine[fine_model.channels[channel]].sum()
            values |= {name: 1.0 for name in one.parameter_names if "[" in name}
            merged = one.expected(named(one, values))[one.channels[channel]]
            torch.testing.assert_close(merged.sum(), fine, rtol=1e-12, atol=1e-10)
        assert observed(coarse)[channel] == [pytest.approx(sum(counts))]


def test_a_likelihood_of_merged_bins_is_the_product_over_them():
    yields, counts = [3.0, 8.0, 5.0, 2.0], [2.0, 11.0, 4.0, 3.0]
    sample = {"name": "s", "data": yields, "modifiers": [{"name": "mu", "type": "normfactor", "data": None}]}
    workspace = example_workspace()
    workspace["channels"] = [{"name": "SR", "samples": [sample]}]
    workspace["observations"] = [{"name": "SR", "data": counts}]
    model = BinnedModel.from_workspace(rebin(workspace, "SR", [0, 1, 3, 4]))
    nu, n = 1.3 * torch.tensor([3.0, 13.0, 2.0]).double(), torch.tensor([2.0, 15.0, 3.0]).double()
    expected = poisson(n, nu).sum()
    torch.testing.assert_close(model.log_prob(model.point(mu=1.3), model.observed), expected, rtol=1e-13, atol=0)
    assert rebin(workspace, "SR", 1) == workspace


def test_equal_weights_merge_exactly_in_a_shapesys():
    "tau of the sum is the sum of tau if u^2 / y is the same in all bins."
    yields, weight = [4.0, 9.0], 0.25
    widths = [math.sqrt(weight * y) for y in yields]
    sample = {"name": "s", "data": yields, "modifiers": [{"name": "u", "type": "shapesys", "data": widths}]}
    workspace = example_workspace()
    workspace["channels"][0]["samples"].append({**sample})
    fine, coarse = (read_workspace(one).parameters["u"] for one in (workspace, rebin(workspace, "signal_region", 2)))
    assert coarse.auxdata == [pytest.approx(sum(fine.auxdata))]


def test_the_fit_of_a_masked_workspace_is_that_of_the_rest():
    workspace = example_workspace()
    masked, rest = (
        fit(BinnedModel.from_workspace(one))
        for one in (mask(workspace, "signal_region"), select(workspace, channels="control_region"))
    )
    assert masked.ok and rest.ok
    assert float(masked["jes"]) == pytest.approx(float(rest["jes"]), abs=1e-7)
    assert masked.estimate("jes").error == pytest.approx(rest.estimate("jes").error, rel=1e-7)
    assert masked.estimate("mc[0]").error == pytest.approx(2 / 50, rel=1e-7)  # its constraint, and nothing else


if PUBLISHED:

    @pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
    def test_published_workspaces_are_operated_on(path):
        workspace = json.loads(path.read_text())
        before, names = json.dumps(workspace), names_of(workspace)
        channel = names["channel"][0]
        alpha = next(
            m["name"]
            for c in workspace["channels"]
            for s in c["samples"]
            for m in s["modifiers"]
            if m["type"] in ("normsys", "histosys")
        )
        part, rest = select(workspace, channels=channel), prune(workspace, channels=channel)
        apart = decorrelate(workspace, alpha)
        changed = [part, apart, rename(workspace, channels={channel: "first"}, modifiers={alpha: "first_alpha"})]
        for one in changed if len(before) < 100_000 else changed[:1]:  # pyhf takes half a minute for the largest
            assert_pyhf_agrees(one, points=2)
        assert_masked(workspace, channel, points=2)
        model, split = BinnedModel.from_workspace(workspace), BinnedModel.from_workspace(apart)
        news = sorted(set(names_of(apart)["modifier"]) - set(names["modifier"]))
        point = random_points(model, 2, 1)[1]
        values = dict(zip(model.parameter_names, point.tolist()))
        values |= dict.fromkeys(news, values[alpha])
        torch.testing.assert_close(split.expected(named(split, values)), model.expected(point), rtol=1e-12, atol=1e-12)
        if len(news) > 1:
            assert correlate(apart, news, into=alpha)["channels"] == workspace["channels"]
        whole = BinnedModel.from_workspace(combine(part, rest))
        assert whole.parameter_names == model.parameter_names and whole.poi == model.poi
        found, expected = (one.log_prob(point, one.observed) for one in (whole, model))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        assert json.dumps(workspace) == before

    def test_two_published_analyses_combine():
        "Both call their uncertainties by the names of the experiment; each shared constraint counts once."
        both = ("atlas_susy2018_31_regionA_bkgonly", "atlas_susy2018_04_combined")
        first, second = (json.loads(path.read_text()) for name in both for path in PUBLISHED if path.stem == name)
        combined = combine(first, second, measurement="both")
        models = [BinnedModel.from_workspace(one) for one in (first, second, combined)]
        shared = sorted(set(models[0].parameter_names) & set(models[1].parameter_names))
        sets = read_workspace(first).parameters
        widths = {name: sets[name].sigmas[0] for name in shared}
        centres = {name: sets[name].auxdata[0] for name in shared}
        assert len(shared) > 15 and combined["channels"] == first["channels"] + second["channels"]
        point = {name: centres[name] + 0.3 * widths[name] * (-1) ** k for k, name in enumerate(shared)}
        parts = [float(model.log_prob(named(model, point), model.observed)) for model in models]
        constraints = sum(-0.5 * 0.3**2 - math.log(width * math.sqrt(2 * math.pi)) for width in widths.values())
        assert parts[2] == pytest.approx(parts[0] + parts[1] - constraints, rel=1e-10)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda w: select(w, channels="signal_regio"), "unknown channel 'signal_regio'; did you mean 'signal_region'?"),
        (lambda w: prune(w, modifiers="JES_*"), "unknown modifier 'JES_*'; choose from: mu, jes, mc"),
        (lambda w: prune(w, modifier_types="normsy"), "unknown modifier type 'normsy'; did you mean 'normsys'?"),
        (lambda w: select(w, measurements="mein"), "unknown measurement 'mein'; did you mean 'main'?"),
        (lambda w: mask(w, "control"), "unknown channel 'control'; did you mean 'control_region'?"),
        (lambda w: rename(w, modifiers={"mu": "jes"}), "modifier 'mu': the name 'jes' is taken; correlate makes one"),
        (lambda w: rename(w, samples={"signal": "background"}), "sample 'background' appears 2 times"),
        (lambda w: correlate(w, ["mu", "jes"], into="x"), "'mu' is a normfactor and 'jes' a "),
        (lambda w: decorrelate(w, "jez"), "unknown parameter 'jez'; did you mean 'jes'?"),
        (lambda w: rebin(w, "signal_region", [0, 1]), "edges must increase from 0 to 2, not [0, 1]"),
        (lambda w: with_data(w, {"signal_region": [1, -1]}), "observation 'signal_region': negative count -1 in bin 1"),
        (
            lambda w: with_data(w, {"signal_region": ["x", 1]}),
            "observation 'signal_region': numbers are needed, not ['x', 1]",
        ),
        (lambda w: combine(w), "combine: two workspaces are needed, not 1"),
        (lambda w: combine(w, w, join="inner"), "unknown join 'inner'; choose from: outer, left outer, right outer"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(call, said):
    with pytest.raises(InputError) as error:
        call(example_workspace())
    assert said in str(error.value) and "\n" not in str(error.value)


def test_settings_that_clash_in_a_combination_are_named():
    workspace = example_workspace()
    other = rename(workspace, channels={"signal_region": "SR", "control_region": "CR"}, modifiers={"mc": "mc_2"})
    for key, value in (("bounds", [[0, 3]]), ("inits", [0.5]), ("fixed", True)):
        clash = copy.deepcopy(other)
        clash["measurements"][0]["config"]["parameters"] = [{"name": "mu", key: value}]
        with pytest.raises(InputError, match=f"measurement 'main', parameter 'mu': its {key} are "):
            combine(workspace, clash)
        wins = combine(workspace, clash, join="right outer")["measurements"][0]["config"]["parameters"]
        assert wins == [{"name": "mu", key: value}]
    clash = copy.deepcopy(other)
    clash["measurements"][0]["config"]["parameters"] = [{"name": "jes", "auxdata": [0.5]}]
    with pytest.raises(InputError, match="parameter 'jes': its auxdata are \\[0.0\\] in workspace 1 and \\[0.5\\] in"):
        combine(workspace, clash)


def test_a_measurement_without_a_name_gets_one():
    workspace = example_workspace()
    workspace["measurements"][0]["name"] = ""
    assert rename(workspace, channels={"control_region": "CR"})["measurements"] == workspace["measurements"]
    assert rename(workspace, measurements={"": "main"}) == example_workspace()


@pytest.mark.parametrize("seed", SEEDS)
def test_other_names_in_another_order_are_the_same_likelihood(seed):
    "Values of single bins, which a staterror of several channels has in the order of their names, go with their bins."
    workspace = random_workspace(seed)
    channels = sorted(names_of(workspace)["channel"])
    new = dict(zip(channels, reversed([f"channel {k}" for k in range(len(channels))])))
    try:
        renamed = rename(workspace, channels=new)
    except InputError as error:
        assert "bins in another channel" in str(error)  # of a shapefactor, whose first channel must have the most
        return
    for entry in workspace["measurements"]:
        models = [BinnedModel.from_workspace(one, measurement=entry["name"]) for one in (workspace, renamed)]
        found = [model.log_prob(model.nominal, model.observed) for model in models]
        torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)
    assert rename(renamed, channels={value: key for key, value in new.items()}) == workspace
