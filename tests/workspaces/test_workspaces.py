"""HistFactory workspaces, random, published and broken: the same likelihood as pyhf, or one line that says why not."""

import contextlib
import copy
import hashlib
import json
import logging
import math
import os
import random
import re
import time
from pathlib import Path

import peers
import pyhf
import pytest
import torch

from hepinf.binned.model import BinnedModel

pytestmark = pytest.mark.filterwarnings("ignore")

CODES = {
    "default": {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}},
    "piecewise": {"normsys": {"interpcode": "code1"}, "histosys": {"interpcode": "code0"}},
}
DATA = os.environ.get("HEPINF_DATA")
PUBLISHED = sorted(Path(DATA, "workspaces").glob("*.json")) if DATA else []


@pytest.fixture(autouse=True)
def quiet_pyhf(caplog):
    "pyhf tells its log about every file that it refuses."
    caplog.set_level(logging.CRITICAL + 1, "pyhf")


@pytest.fixture
def pyhf_gradients():
    "A function for pyhf's gradients, by differences: every version has its numpy backend."
    return lambda model, points, data: torch.stack([peers.gradient(model, point, data) for point in points])


def modifier(name, kind, data=None):
    return {"name": name, "type": kind, "data": data}


class Generator:
    "One random workspace that pyhf accepts, with every kind of modifier and every way of sharing it."

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.sets = {}  # parameter name -> (kind, number of values)
        # neither the channels nor the samples are in the order of the alphabet, in which the model has them
        channels = self.rng.sample(["SR", "CR top", "b", "A_2", "été"], self.rng.randint(1, 4))
        self.channels = {name: self.samples(self.rng.randint(1, 5)) for name in channels}
        self.empty_bin()
        for channel, samples in self.channels.items():
            for name, sample in samples.items():
                sample["modifiers"] = self.modifiers(channel, name, sample["data"])
        self.staterrors()
        self.shapefactors()
        if not self.sets:
            self.add(next(iter(samples.values())), modifier("mu", "normfactor"))
        for sample in (s for samples in self.channels.values() for s in samples.values()):
            self.rng.shuffle(sample["modifiers"])

    def often(self, probability):
        return self.rng.random() < probability

    def numbers(self, n, low, high, zeros=0.0):
        return [0 if self.often(zeros) else round(self.rng.uniform(low, high), 4) for _ in range(n)]

    def samples(self, bins):
        names = self.rng.sample(["sig", "top", "Z+jets", "WW", "fakes"], self.rng.randint(1, 4))
        return {name: {"name": name, "data": self.numbers(bins, 0.5, 60, zeros=0.08)} for name in names}

    def empty_bin(self):
        "In some workspaces a bin expects nothing from any sample."
        if self.often(0.3):
            samples = self.rng.choice(list(self.channels.values())).values()
            k = self.rng.randrange(len(next(iter(samples))["data"]))
            for sample in samples:
                sample["data"][k] = 0

    def add(self, sample, entry, n=1):
        sample["modifiers"].append(entry)
        self.sets.setdefault(entry["name"], (entry["type"], n))

    def modifiers(self, channel, name, data):
        found = []
        sample = {"modifiers": found}
        if name == "sig" or self.often(0.1):
            self.add(sample, modifier("mu", "normfactor"))
        if name == "top" and self.often(0.5):
            self.add(sample, modifier("k_top", "normfactor"))
        if self.often(0.3):
            self.add(sample, modifier("lumi", "lumi"))
        for alpha in ("JES", "b-tag", "alpha_x"):
            if self.often(0.35):
                low, high = self.rng.uniform(0.7, 1.05), self.rng.uniform(0.95, 1.4)
                self.add(sample, modifier(alpha, "normsys", {"lo": low, "hi": self.rng.choice([high, 1])}))
            if self.often(0.35):
                sides = ([y * self.rng.uniform(0.8, 1.2) + self.rng.choice([0, 0.1]) for y in data] for _ in range(2))
                self.add(sample, modifier(alpha, "histosys", dict(zip(("lo_data", "hi_data"), sides))))
        if self.often(0.3):
            widths = [y * u for y, u in zip(data, self.numbers(len(data), 0.05, 0.5, zeros=0.1))]
            self.add(sample, modifier(f"shape {channel} {name}", "shapesys", widths), len(data))
        return found

    def staterror(self, name, channels, samples):
        for channel in channels:
            for sample in samples:
                entry = self.channels[channel][sample]
                widths = self.numbers(len(entry["data"]), 0.1, 4, zeros=0.2)
                bins = sum(len(next(iter(self.channels[c].values()))["data"]) for c in channels)
                self.add(entry, modifier(name, "staterror", widths), bins)

    def staterrors(self):
        "Of each channel by its own name, or of several channels by one name."
        if self.often(0.4):
            channels = self.rng.sample(list(self.channels), self.rng.randint(1, len(self.channels)))
            shared = sorted(set.intersection(*(set(self.channels[c]) for c in channels)))
            self.staterror("stat", channels, shared[: self.rng.randint(1, 3)])
            return
        for channel, samples in self.channels.items():
            if self.often(0.5):
                carried = self.rng.sample(list(samples), self.rng.randint(1, len(samples)))
                self.staterror(f"stat_{channel}", [channel], carried)

    def shapefactors(self):
        "Shared by channels, of which the first in the alphabet has the most bins."
        if not self.often(0.4):
            return
        bins = {c: len(next(iter(samples.values()))["data"]) for c, samples in self.channels.items()}
        first = self.rng.choice(list(bins))
        for channel in [first, *(c for c in bins if c > first and bins[c] <= bins[first] and self.often(0.6))]:
            for sample in self.rng.sample(
                list(self.channels[channel]), self.rng.randint(1, len(self.channels[channel]))
            ):
                self.add(self.channels[channel][sample], modifier("free", "shapefactor"), bins[first])

    def settings(self):
        "What a measurement says about some of the parameters."
        found = [{"name": "pruned away", "inits": [3.0]}] if self.often(0.3) else []
        for name, (kind, n) in self.sets.items():
            every = {"fixed": self.often(0.5)}
            if kind == "lumi":
                every |= {"inits": [1.0], "bounds": [[0.5, 1.5]]}
                every |= {"auxdata": [self.rng.choice([1.0, 1.01])], "sigmas": [0.02]}
            elif kind in ("normsys", "histosys"):
                every |= {"inits": [0.2], "bounds": [[-2, 3.5]], "auxdata": [0.3]}
            else:
                every |= {"inits": self.numbers(n, 0.8, 1.2), "bounds": [[self.rng.choice([0.1, 0]), 4.0]] * n}
            if kind == "staterror":
                every |= {"auxdata": self.numbers(n, 0.9, 1.1), "sigmas": self.numbers(n, 0.1, 0.3)}
            if kind == "shapesys":
                every |= {"auxdata": self.numbers(n, 5, 90), "factors": self.numbers(n, 5, 90)}
            chosen = {key: value for key, value in every.items() if kind == "lumi" or self.often(0.3)}
            if chosen.get("fixed") is False and kind == "lumi" and self.often(0.5):
                del chosen["fixed"]
            if chosen:
                found.append({"name": name, **chosen})
        self.rng.shuffle(found)
        return found

    def observed(self, samples):
        totals = [sum(y) for y in zip(*(sample["data"] for sample in samples.values()))]
        return [self.rng.choice([round, float])(y * self.rng.uniform(0.7, 1.3)) for y in totals]

    def workspace(self):
        observations = [{"name": c, "data": self.observed(samples)} for c, samples in self.channels.items()]
        self.rng.shuffle(observations)
        scalars = [name for name, (kind, _) in self.sets.items() if kind in ("normfactor", "normsys", "lumi")] + [
            "gone"
        ]
        return {
            "version": "1.0.0",
            "channels": [{"name": c, "samples": list(samples.values())} for c, samples in self.channels.items()],
            "observations": observations,
            "measurements": [
                {"name": f"fit {k}", "config": {"poi": self.rng.choice(scalars), "parameters": self.settings()}}
                for k in range(self.rng.randint(1, 3))
            ],
        }  # fmt: skip


def random_workspace(seed):
    return Generator(seed).workspace()


def in_pyhf(workspace, measurement=None, **options):
    "pyhf's model and data; without a parameter of interest if the model does not have the measurement's."
    model = workspace.model(measurement_name=measurement, poi_name=None, validate=False, **options)
    with contextlib.suppress(pyhf.exceptions.InvalidModel):
        model.config.set_poi(workspace.get_measurement(measurement_name=measurement)["config"]["poi"])
    return model, workspace.data(model)


def random_points(model, number, seed):
    "Half of them anywhere within the bounds, half near the nominal point; none on a bound."
    rng = torch.Generator().manual_seed(seed)
    low, high = model.bounds.T
    shape = (number // 2, len(low))
    anywhere = torch.rand(shape, generator=rng, dtype=torch.float64)
    near = (model.nominal + 0.3 * torch.randn(shape, generator=rng, dtype=torch.float64) - low) / (high - low)
    return low + (high - low) * torch.cat([anywhere, near]).clamp(1e-3, 1 - 1e-3)


def assert_same_parameters(ours, theirs, data):
    config = theirs.config
    assert ours.parameter_names == config.par_names
    assert ours.nominal.tolist() == config.suggested_init()
    assert ours.bounds.tolist() == [list(pair) for pair in config.suggested_bounds()]
    assert ours.fixed == config.suggested_fixed()
    assert ours.auxdata.tolist() == config.auxdata
    assert ours.observed.tolist() == data[: config.nmaindata]
    assert (ours.poi and ours.index(ours.poi)) == config.poi_index
    assert list(ours.channels) == config.channels


def assert_same_values(ours, theirs, points, data, rtol):
    "Yields and log-likelihoods; returns which points have one."
    expected = torch.tensor([theirs.expected_actualdata(p.tolist()).tolist() for p in points], dtype=torch.float64)
    torch.testing.assert_close(ours.expected(points), expected, rtol=rtol, atol=1e-10)
    found, allowed = ours.log_prob(points, ours.observed), (expected >= 0).all(-1)
    # where a yield is negative pyhf has NaN, or a number if the bin counted nothing
    assert (found[~allowed] == -math.inf).all()
    theirs_found = [float(theirs.logpdf(p.tolist(), data)[0]) for p in points[allowed]]
    torch.testing.assert_close(found[allowed], torch.tensor(theirs_found, dtype=torch.float64), rtol=rtol, atol=0)
    return allowed & found.isfinite()


def autograd(model, points):
    theta = points.clone().requires_grad_()
    return torch.autograd.grad(model.log_prob(theta, model.observed).sum(), theta)[0]


def assert_same_hessian(model, point):
    reference = torch.func.hessian(lambda theta: model.log_prob(theta, model.observed))(point)
    found = model.derivatives(point[None], model.observed)[2][0]
    torch.testing.assert_close(found, reference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(60))
def test_random_workspace_is_pyhfs(seed, pyhf_gradients):
    workspace = random_workspace(seed)
    reference, names = pyhf.Workspace(workspace), [m["name"] for m in workspace["measurements"]]
    cases = [(None, "default"), (None, "piecewise"), *((name, "default") for name in names[1:])]
    for measurement, codes in cases:
        options = {"measurement": measurement, "modifier_settings": CODES[codes]}
        ours = BinnedModel.from_workspace(workspace, **options)
        theirs, data = in_pyhf(reference, **options)
        assert_same_parameters(ours, theirs, data)
        assert_same_values(ours, theirs, ours.nominal[None], data, rtol=1e-10)  # a kink of the piecewise codes
        points = random_points(ours, 12, seed)
        points = points[assert_same_values(ours, theirs, points, data, rtol=1e-10)]
        exact = autograd(ours, points)
        gradients = pyhf_gradients(theirs, points[-3:], data)
        known = gradients.isfinite()  # pyhf has NaN where a bin expects and counts nothing
        torch.testing.assert_close(exact[-3:][known], gradients[known], rtol=1e-6, atol=1e-6)
        assert exact.isfinite().all()
        for order in (1, 2):
            value, gradient, *_ = ours.derivatives(points, ours.observed, order=order)
            torch.testing.assert_close(value, ours.log_prob(points, ours.observed), rtol=1e-12, atol=0)
            torch.testing.assert_close(gradient, exact, rtol=1e-9, atol=1e-9)
        assert_same_hessian(ours, points[-1])
    assert workspace == dict(reference)


def test_slope_at_the_kink_lies_between_its_sides():
    "The piecewise codes bend at the nominal point; a slope of 0 there would hold every fit that starts at it."
    workspace = two_channels()
    model = BinnedModel.from_workspace(workspace, modifier_settings=CODES["piecewise"])
    jes = model.index("JES")
    points = torch.stack([model.point(JES=value) for value in (-1e-9, 0.0, 1e-9)])
    for order in (1, 2):
        below, at, above = model.derivatives(points, model.observed, order=order)[1][:, jes].tolist()
        assert min(below, above) < at < max(below, above)


@pytest.mark.parametrize("seed", range(60))
def test_random_workspace_comes_back(seed):
    workspace = random_workspace(seed)
    for measurement in (m["name"] for m in workspace["measurements"]):
        ours = BinnedModel.from_workspace(workspace, measurement=measurement)
        again = BinnedModel.from_workspace(ours.to_workspace(), measurement=measurement)
        assert again.parameters == ours.parameters and again.poi == ours.poi
        assert torch.equal(again.observed, ours.observed)
        points = random_points(ours, 4, seed)
        assert torch.equal(again.log_prob(points, ours.observed), ours.log_prob(points, ours.observed))


if PUBLISHED:

    @pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
    def test_published_workspace_is_pyhfs(path, pyhf_gradients):
        ours = BinnedModel.from_workspace(path)
        theirs, data = in_pyhf(pyhf.Workspace(json.loads(path.read_text())))
        assert_same_parameters(ours, theirs, data)
        points = random_points(ours, 100, seed=1)
        points = points[assert_same_values(ours, theirs, points, data, rtol=1e-8)]
        assert len(points) > 40
        exact = autograd(ours, points)
        for order in (1, 2):
            gradient = ours.derivatives(points, ours.observed, order=order)[1]
            torch.testing.assert_close(gradient, exact, rtol=1e-8, atol=1e-8)
        reference = pyhf_gradients(theirs, points[-3:], data)
        # differences over a step of 1e-4 carry the rounding of the sum of n ln nu
        rounding = 2.2e-16 * float(torch.xlogy(ours.observed, ours.observed).sum()) / 1e-4
        torch.testing.assert_close(exact[-3:], reference, rtol=1e-6, atol=1e-6 + rounding)
        assert_same_hessian(ours, points[-1])


VALUES = [
    None,
    True,
    "text",
    "",
    [],
    {},
    -1,
    0,
    2**70,
    1e308,
    math.nan,
    math.inf,
    10**400,
    [[1.0, [2.0]]],
    "two\nlines",
]
VALUES += ["x" * 100_000]
CLEAR = re.compile(r"(\S*cut.json: )?(workspace|channel|observation|measurement|parameter|staterror|not a JSON file).+")
KINDS = ["histosys", "lumi", "normfactor", "normsys", "shapefactor", "shapesys", "staterror", "stat error"]


def places(node, where=""):
    "Every container below a JSON value, with each of its keys or positions, by what it is in the format."
    found = {}
    if isinstance(node, dict):
        where += f"/{node.get('type', '')}"
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        here = f"{where}/{key if isinstance(node, dict) else ''}"
        found.setdefault(here, []).append((node, key))
        if isinstance(node[key], dict | list):
            for below, entries in places(node[key], here).items():
                found.setdefault(below, []).extend(entries)
    return found


def mutate(workspace, rng):
    "One change to a workspace, in place; returns what was done."
    every = list(places(workspace).values())

    def pick(wanted=lambda value, key: True):
        "A place of a random kind, so that the many numbers do not take all changes."
        kinds = [kind for kind in every if any(wanted(node[key], key) for node, key in kind)]
        return rng.choice([(node, key) for node, key in rng.choice(kinds) if wanted(node[key], key)])

    actions = ["delete", "duplicate", "replace", "replace", "nudge", "nudge", "paste", "rename", "rename", "length"]
    action = rng.choice(actions)
    node, key = pick()
    if action == "delete":
        del node[key]
    elif action == "duplicate" and isinstance(node, list):
        node.insert(key, copy.deepcopy(node[key]))
    elif action == "duplicate":
        node[f"{key} 2"] = copy.deepcopy(node[key])
    elif action == "replace":
        node[key] = rng.choice(VALUES)
    elif action == "nudge":
        node, key = pick(lambda value, key: isinstance(value, int | float) and not isinstance(value, bool))
        node[key] *= rng.choice([-1, 0.5, 1.1, 2])
    elif action == "paste":
        other, place = pick()
        node[key] = copy.deepcopy(other[place])
    elif action == "rename":
        (node, key), (other, place) = (pick(lambda value, key: isinstance(value, str)) for _ in range(2))
        node[key] = rng.choice([other[place], node[key] + "x", node[key][:-1], rng.choice(KINDS)])
    else:
        node, key = pick(lambda value, key: isinstance(value, list) and value)
        items = node[key]
        items[:] = rng.choice([items[:-1], items + items[-1:], items * 2, items[::-1]])
    return f"{action} at {key}"


def broken_file(workspace, rng, path):
    "Its JSON text, cut off at any byte."
    text = json.dumps(workspace, ensure_ascii=False).encode()
    path.write_bytes(text[: rng.randrange(len(text))])
    return path


def disagreement(ours, workspace):
    "What pyhf says otherwise of a workspace that was read; empty if nothing, or if it cannot evaluate it."
    try:
        theirs, data = in_pyhf(pyhf.Workspace(workspace))
        init = theirs.config.suggested_init()
        reference = float(theirs.logpdf(init, data)[0])
        expected = theirs.expected_data(init).tolist()
    except pyhf.exceptions.InvalidSpecification as error:
        return f"read, but against pyhf's schema: {str(error).splitlines()[0]:.200}"
    except Exception:
        return ""
    if not math.isfinite(reference):
        return ""
    assert_same_parameters(ours, theirs, data)
    found = float(ours.log_prob(ours.nominal, ours.observed))
    if min(expected[: theirs.config.nmaindata]) < 0:
        reference = -math.inf  # in pyhf a number if the bin counted nothing
    # a Poisson term is a difference of numbers as large as n log(n)
    rounding = 1e-13 * max(map(abs, data + expected))
    if found != reference and not abs(found - reference) < 1e-8 * abs(reference) + rounding:
        return f"log-likelihood {found}, in pyhf {reference}"
    return ""


@pytest.mark.parametrize("block", range(10))
def test_mutated_workspace_is_read_as_by_pyhf_or_refused_in_one_line(block, tmp_path):
    rng, read, failures, slowest = random.Random(block), 0, [], 0.0
    originals = [random_workspace(100 + 5 * block + k) for k in range(4)]
    if PUBLISHED:
        originals.append(json.loads(min(PUBLISHED, key=lambda path: path.stat().st_size).read_text()))
    for case in range(100):
        workspace = copy.deepcopy(rng.choice(originals))
        if case % 10 == 0:
            source, did = broken_file(workspace, rng, tmp_path / "cut.json"), ["cut off"]
        else:
            source, did = workspace, [mutate(workspace, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        begin, trouble = time.perf_counter(), ""
        try:
            ours = BinnedModel.from_workspace(source)
            slowest = max(slowest, time.perf_counter() - begin)
            read += 1
            trouble = disagreement(ours, workspace)
        except ValueError as error:
            trouble = "" if CLEAR.fullmatch(str(error)) else f"the message {str(error)!r:.300}"
        except Exception as error:
            trouble = f"{type(error).__name__}: {error!s:.300}"
        failures += [f"block {block}, case {case}, {', '.join(did)}: {trouble}"] if trouble else []
    assert not failures, "\n".join(failures)
    assert 10 < read < 90 and slowest < 5


def two_channels():
    """Signal and background in two channels. The background has a normsys, a histosys and a shapesys in the first, and
    a staterror in both."""
    signal = {"name": "signal", "data": [5.0, 8.0], "modifiers": [modifier("mu", "normfactor")]}
    shapes = {"lo_data": [45.0, 33.0], "hi_data": [55.0, 27.0]}
    background = [modifier("JES", "normsys", {"lo": 0.9, "hi": 1.2}), modifier("JES", "histosys", shapes)]
    background += [modifier("fakes", "shapesys", [5.0, 3.0]), modifier("mc", "staterror", [2.0, 1.0])]
    control = [modifier("mc", "staterror", [6.0, 7.0, 8.0]), modifier("lumi", "lumi")]
    return {
        "version": "1.0.0",
        "channels": [
            {"name": "SR", "samples": [signal, {"name": "bkg", "data": [50.0, 30.0], "modifiers": background}]},
            {"name": "CR", "samples": [{"name": "bkg", "data": [200.0, 150.0, 90.0], "modifiers": control}]},
        ],
        "observations": [{"name": "SR", "data": [57, 36]}, {"name": "CR", "data": [190, 160, 95]}],
        "measurements": [{"name": "fit", "config": {"poi": "mu", "parameters": [
            {"name": "lumi", "inits": [1.0], "bounds": [[0.5, 1.5]], "auxdata": [1.0], "sigmas": [0.02]},
        ]}}],
    }  # fmt: skip


def sample(workspace, channel=0, position=-1):
    return workspace["channels"][channel]["samples"][position]


def entry(workspace, name, kind, channel=0):
    "The first modifier of this name and kind in a channel."
    every = (m for s in workspace["channels"][channel]["samples"] for m in s["modifiers"])
    return next(m for m in every if m["name"] == name and m["type"] == kind)


def add(workspace, *modifier_, channel=0, position=0):
    sample(workspace, channel, position)["modifiers"].append(modifier(*modifier_))


def settings(workspace, **entries):
    "Add or change the settings of the first measurement for the parameter `name`."
    every = workspace["measurements"][0]["config"]["parameters"]
    known = [s for s in every if s["name"] == entries["name"]]
    known[0].update(entries) if known else every.append(entries)


BAD = {
    "no observation": (lambda w: w["observations"].pop(), "channel 'CR'", "no observation"),
    "unknown channel": (lambda w: w["observations"][1].update(name="CRR"), "'CR'", "'CRR'"),
    "channel twice": (lambda w: w["channels"].append(w["channels"][0]), "channel 'SR'", "twice"),
    "observation twice": (lambda w: w["observations"].append(w["observations"][0]), "channel 'SR'", "2 times"),
    "sample twice": (lambda w: sample(w).update(name="signal"), "channel 'SR'", "'signal'", "2 times"),
    "negative count": (lambda w: w["observations"][0]["data"].__setitem__(0, -1), "'SR'", "-1", "bin 0"),
    "negative uncertainty": (lambda w: entry(w, "fakes", "shapesys")["data"].__setitem__(0, -1), "'fakes'", "bin 0"),
    "nan yield": (lambda w: sample(w)["data"].__setitem__(0, math.nan), "'SR'", "'bkg'", "bin 0", "nan"),
    "nan count": (lambda w: w["observations"][1]["data"].__setitem__(2, math.nan), "'CR'", "bin 2", "nan"),
    "infinite histosys": (
        lambda w: entry(w, "JES", "histosys")["data"]["hi_data"].__setitem__(1, math.inf),
        "'SR'", "'bkg'", "'JES'", "hi_data", "bin 1",
    ),
    "huge integer": (lambda w: sample(w)["data"].__setitem__(1, 10**400), "'SR'", "'bkg'", "bin 1"),
    "text for a number": (lambda w: sample(w)["data"].__setitem__(1, "30"), "'SR'", "'bkg'", "bin 1", "'30'"),
    "short sample": (lambda w: sample(w)["data"].pop(), "'SR'", "'bkg'", "1 values where 2"),
    "long observation": (lambda w: w["observations"][1]["data"].append(1), "'CR'", "4 values where 3"),
    "short histosys": (lambda w: entry(w, "JES", "histosys")["data"]["lo_data"].pop(), "'JES'", "lo_data", "1 values"),
    "short shapesys": (lambda w: entry(w, "fakes", "shapesys")["data"].pop(), "'SR'", "'fakes'", "1 values"),
    "long staterror": (lambda w: entry(w, "mc", "staterror", 1)["data"].append(1), "'CR'", "'mc'", "4 values"),
    "unknown modifier": (
        lambda w: entry(w, "JES", "normsys").update(type="norm_sys"), "'bkg'", "'JES'", "did you mean 'normsys'"
    ),
    "negative normsys": (lambda w: entry(w, "JES", "normsys")["data"].update(lo=-0.1), "'JES'", "'lo'", "negative"),
    "inconsistent staterror": (lambda w: add(w, "mc", "staterror", [1, 1]), "'mc'", "'signal'", "'SR'", "'CR'"),
    "two data of a modifier": (
        lambda w: add(w, "JES", "normsys", {"lo": 0.8, "hi": 1.1}, position=1), "'bkg'", "'JES'", "normsys", "twice"
    ),
    "shared shapesys": (lambda w: add(w, "fakes", "shapesys", [1, 1]), "'signal'", "'fakes'", "another sample"),
    "one name for two": (lambda w: add(w, "mu", "shapesys", [1, 1], position=1), "'mu'", "shapesys", "normfactor"),
    "growing shapefactor": (
        lambda w: (w["channels"][0].update(name="A"), w["observations"][0].update(name="A"),
                   add(w, "free", "shapefactor"), add(w, "free", "shapefactor", channel=1)),
        "'CR'", "'bkg'", "'free'", "2 bins", "3 here",
    ),
    "lumi without settings": (lambda w: w["measurements"][0]["config"]["parameters"].clear(), "'lumi'", "inits"),
    "lumi of another name": (lambda w: entry(w, "lumi", "lumi", 1).update(name="L"), "'L'", "must be named 'lumi'"),
    "wrong number of settings": (lambda w: settings(w, name="fakes", inits=[1.0]), "'fakes'", "1 inits where 2"),
    "settings that do not apply": (lambda w: settings(w, name="mu", sigmas=[1.0]), "'mu'", "normfactor", "'sigmas'"),
    "settings twice": (lambda w: w["measurements"][0]["config"]["parameters"].append({"name": "lumi"}), "'lumi'", "2"),
    "bounds in the wrong order": (lambda w: settings(w, name="mu", bounds=[[3, 1]]), "'mu'", "order"),
    "start outside the bounds": (lambda w: settings(w, name="mu", inits=[11]), "'mu'", "11", "outside"),
    "a width of zero": (lambda w: settings(w, name="lumi", sigmas=[0]), "'lumi'", "sigmas", "positive"),
    "negative counts of a constraint": (lambda w: settings(w, name="fakes", auxdata=[-1, 9]), "'fakes'", "auxdata"),
    "version": (lambda w: w.update(version="2.0.0"), "version", "'1.0.0'", "'2.0.0'"),
    "misspelt key": (lambda w: w.update(channel=w.pop("channels")), "'channels' is missing"),
    "key too many": (lambda w: sample(w).update(datas=[1, 2]), "'datas'", "did you mean 'data'"),
    "no measurement": (lambda w: w["measurements"].clear(), "measurements", "non-empty"),
    "no modifier": (
        lambda w: [s["modifiers"].clear() for c in w["channels"] for s in c["samples"]], "workspace", "no modifier"
    ),
    # numbers that are finite, but not all that is computed from them
    "a huge yield": (lambda w: sample(w)["data"].__setitem__(0, 1e200), "'SR'", "'bkg'", "bin 0", "1e+200"),
    "shapesys of a huge width": (
        lambda w: entry(w, "fakes", "shapesys")["data"].__setitem__(1, 1e200), "'SR'", "'bkg'", "'fakes'", "bin 1"
    ),
    "shapesys of a tiny width": (
        lambda w: entry(w, "fakes", "shapesys")["data"].__setitem__(1, 1e-200), "'SR'", "'bkg'", "'fakes'", "bin 1"
    ),
    "staterror of a huge width": (lambda w: entry(w, "mc", "staterror")["data"].__setitem__(1, 1e200), "'mc'", "bin 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_workspace_is_refused_by_name(case):
    change, *words = BAD[case]
    workspace = two_channels()
    BinnedModel.from_workspace(workspace)
    change(workspace)
    with pytest.raises(ValueError) as caught:
        BinnedModel.from_workspace(workspace)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "3", '"text"', "{}", "{", "\ufeff{}", "[" * 2000, "1" * 5000, '{"version": 1e999}']
)
def test_file_that_is_no_workspace_is_refused_with_its_name(text, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^\S*broken.json: .+$"):
        BinnedModel.from_workspace(path)
    path.write_bytes(b"\xff\xfe" + text.encode())
    with pytest.raises(ValueError, match=r"^\S*broken.json: .+$"):
        BinnedModel.from_workspace(str(path))


def test_deep_nesting_is_refused():
    workspace = two_channels()
    sample(workspace)["data"] = nested(5000)
    with pytest.raises(ValueError, match="workspace"):
        BinnedModel.from_workspace(workspace)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(measurement="fitt"), "measurement 'fitt'; did you mean 'fit'"),
        (dict(poi="mu_sig"), "'mu_sig'; did you mean 'mu'"),
        (dict(poi="mc"), "'mc'"),  # three values are not one parameter of interest
        (dict(modifier_settings={"normsys": {"interpcode": "code5"}}), "normsys.*'code5'"),
        (dict(modifier_settings={"normsys": {"interpcode": "code4p"}}), "normsys.*'code4p'.*'code4'"),
        (dict(modifier_settings={"normsys": {"interpcode": ["code4"]}}), "normsys"),
        (dict(modifier_settings={"norm": {"interpcode": "code4"}}), "'norm'; did you mean 'normsys'"),
    ],
)
def test_bad_option_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        BinnedModel.from_workspace(two_channels(), **options)


def test_integers_beyond_64_bits_are_numbers():
    workspace = two_channels()
    workspace["observations"][0]["data"] = [2**64, 10**20]
    entry(workspace, "JES", "normsys")["data"]["hi"] = 2**64
    sample(workspace, 1)["data"] = [2**64, 2**65, 2**66]
    ours = BinnedModel.from_workspace(workspace)
    theirs, data = in_pyhf(pyhf.Workspace(workspace))
    assert_same_values(ours, theirs, ours.nominal[None], data, rtol=1e-10)


def test_parameter_of_interest_may_be_chosen_or_absent():
    workspace = two_channels()
    assert BinnedModel.from_workspace(workspace).poi == "mu"
    assert BinnedModel.from_workspace(workspace, poi="JES").poi == "JES"
    assert BinnedModel.from_workspace(workspace, poi=None).poi is None
    for name in ("", "gone", "mc"):  # `mc` has one value a bin
        workspace["measurements"][0]["config"]["poi"] = name
        assert BinnedModel.from_workspace(workspace).poi is None
    # a parameter per bin of a channel with one bin
    one = {"name": "tt", "data": [20.0], "modifiers": [modifier("free", "shapefactor")]}
    workspace["channels"].append({"name": "one bin", "samples": [one]})
    workspace["observations"].append({"name": "one bin", "data": [23]})
    workspace["measurements"][0]["config"]["poi"] = "free"
    ours = BinnedModel.from_workspace(workspace)
    assert_same_parameters(ours, *in_pyhf(pyhf.Workspace(workspace)))
    assert ours.poi == "free[0]"


def signal_patches(workspace):
    "A patchset with two signal hypotheses for the background-only workspace."
    text = json.dumps(workspace, sort_keys=True, ensure_ascii=False).encode()
    digests = {name: hashlib.new(name, text).hexdigest() for name in ("md5", "sha256")}
    patches = []
    for mass, yields in ((500, [4.0, 9.0]), (900, [1.0, 6.0])):
        signal = {"name": f"signal_{mass}", "data": yields, "modifiers": [modifier("mu", "normfactor")]}
        patch = [
            {"op": "add", "path": "/channels/0/samples/0", "value": signal},
            {"op": "replace", "path": "/channels/1/samples/0/data/2", "value": 91.5},
            {"op": "replace", "path": "/measurements/0/config/poi", "value": "mu"},
        ]
        patches.append({"patch": patch, "metadata": {"name": f"signal_{mass}", "values": [mass]}})
    about = {"references": {"hepdata": "ins1234567"}, "description": "signals", "labels": ["mass"], "digests": digests}
    return {"version": "1.0.0", "metadata": about, "patches": patches}


@pytest.fixture
def background_only():
    workspace = two_channels()
    del workspace["channels"][0]["samples"][0]
    return workspace


@pytest.mark.parametrize("name", ["signal_500", "signal_900"])
@pytest.mark.parametrize("stored", [False, True])
def test_patchset_gives_pyhfs_model(background_only, name, stored, tmp_path):
    patchset = signal_patches(background_only)
    patched = pyhf.PatchSet(patchset).apply(pyhf.Workspace(background_only), name)
    theirs, data = in_pyhf(patched)
    source, patches = background_only, patchset
    operations = next(p["patch"] for p in patchset["patches"] if p["metadata"]["name"] == name)
    if stored:
        source, patches, operations = (
            write(tmp_path / f"{k}.json", x) for k, x in enumerate((source, patches, operations))
        )
    assert BinnedModel.from_workspace(source).poi is None
    for patch in ((patches, name), operations):
        ours = BinnedModel.from_workspace(source, patch=patch)
        assert_same_parameters(ours, theirs, data)
        assert_same_values(ours, theirs, random_points(ours, 10, 0), data, rtol=1e-10)
        assert ours.poi == "mu" and ours.to_workspace() == dict(patched)
    assert "signal" not in json.dumps(background_only)


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_patchset_of_another_workspace_is_refused(background_only):
    patchset = signal_patches(background_only)
    background_only["observations"][0]["data"][0] += 1
    with pytest.raises(pyhf.exceptions.PatchSetVerificationError):
        pyhf.PatchSet(patchset).apply(pyhf.Workspace(background_only), "signal_500")
    for algorithm in ("md5", "sha256"):
        one = copy.deepcopy(patchset)
        one["metadata"]["digests"] = {algorithm: one["metadata"]["digests"][algorithm]}
        with pytest.raises(ValueError, match=f"{algorithm} digest"):
            BinnedModel.from_workspace(background_only, patch=(one, "signal_500"))


@pytest.mark.parametrize(
    "patch, message",
    [
        (lambda patchset: (patchset, "signal_50"), "patch 'signal_50'; did you mean 'signal_500'"),
        (lambda patchset: patchset, "signal_500, signal_900"),
        (lambda patchset: (patchset,), "patchset, name"),
        (lambda patchset: [{"op": "remove", "path": "/channels/7"}], "patch.*'7'|patch.*not apply"),
        (lambda patchset: [{"op": "delete", "path": "/channels/0"}], "patch"),
        (lambda patchset: [{"op": "replace", "path": "/observations/0/data/1", "value": -1}], "'SR'.*bin 1"),
        (lambda patchset: [{"path": "/channels/0"}], "patch, operation 0"),
        (lambda patchset: [3], "patch, operation 0"),
        (lambda patchset: [{"op": "test", "path": "/version", "value": "two\nlines"}], "patch"),
        (
            lambda patchset: ({**patchset, "patches": [{**patchset["patches"][0], "patch": None}]}, "signal_500"),
            "patch",
        ),
        (lambda patchset: {"patches": []}, "patchset"),
        (
            lambda patchset: ({**patchset, "patches": patchset["patches"][:1] * 2}, "signal_500"),
            "'signal_500'.*2|twice",
        ),
    ],
)
def test_bad_patch_is_refused(background_only, patch, message):
    with pytest.raises(ValueError, match=message) as caught:
        BinnedModel.from_workspace(background_only, patch=patch(signal_patches(background_only)))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_batches_broadcast(seed):
    "(2, 3) points with 3 data sets: each point with its own, as one at a time."
    model = BinnedModel.from_workspace(random_workspace(seed))
    points = random_points(model, 12, seed)[6:].reshape(2, 3, -1)
    rng = torch.Generator().manual_seed(seed)
    counts, auxdata = model.sample(random_points(model, 2, seed)[1].expand(3, -1), rng)
    value, gradient, hessian = model.derivatives(points, counts, auxdata)
    found = model.log_prob(points, counts, auxdata)
    assert found.shape == (2, 3)
    torch.testing.assert_close(model.log_prob(points, counts[0]), model.log_prob(points, counts[:1].expand(3, -1)))
    for i in range(2):
        for j in range(3):
            alone = (points[i, j], counts[j], auxdata[j])
            torch.testing.assert_close(found[i, j], model.log_prob(*alone), rtol=1e-12, atol=0)
            together = (value[i, j], gradient[i, j], hessian[i, j])
            torch.testing.assert_close(together, model.derivatives(*alone), rtol=1e-9, atol=1e-9)


def test_toys_have_the_mean_and_variance_of_their_distributions():
    "Counts and Poisson auxiliary data have their mean as variance, normal ones that of the constraint."
    workspace, number = two_channels(), 20_000
    settings(workspace, name="fakes", factors=[30.0, 4.0], auxdata=[31.0, 4.5])
    settings(workspace, name="mc", sigmas=[0.1, 0.2, 0.3, 0.4, 0.5])
    model = BinnedModel.from_workspace(workspace)
    theirs, data = in_pyhf(pyhf.Workspace(workspace))
    theta = model.point(mu=1.5, JES=0.4, lumi=1.01, **{"fakes[0]": 1.2, "fakes[1]": 0.7, "mc[3]": 1.1})
    expected = torch.tensor(theirs.expected_data(theta.tolist()), dtype=torch.float64)
    counts, auxdata = model.sample(theta.expand(number, -1), torch.Generator().manual_seed(4))
    toys = torch.cat([counts, auxdata], -1)
    torch.testing.assert_close(torch.cat([model.expected(theta), model.expected_auxdata(theta)]), expected)
    names = [name.split("[")[0] for name in (model.parameter_names[j] for j in model.constrained)]
    sd = {"lumi": [0.02], "JES": [1.0], "mc": [0.1, 0.2, 0.3, 0.4, 0.5]}
    normal = torch.tensor([name != "fakes" for name in names])
    variance = expected.clone()
    variance[theirs.config.nmaindata :][normal] = torch.tensor(
        [s**2 for name in dict.fromkeys(names) if name != "fakes" for s in sd[name]], dtype=torch.float64
    )
    assert ((toys.mean(0) - expected).abs() < 4.5 * (variance / number).sqrt()).all()
    # the fourth moment of a Poisson variable adds 1 / mean to the relative variance 2 / n of the variance
    poisson = torch.ones_like(variance)
    poisson[theirs.config.nmaindata :][normal] = 0
    spread = ((2 + poisson / expected) / number).sqrt()
    assert ((toys.var(0) / variance - 1).abs() < 4.5 * spread).all()
    assert (toys[:, theirs.config.nmaindata :][:, ~normal] % 1 == 0).all()
