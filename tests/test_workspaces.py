"""HistFactory workspaces, random, published and broken: the same likelihood as pyhf, or one line that says why not."""

import copy
import hashlib
import json
import logging
import math
import os
import random
import time
from pathlib import Path

import pyhf
import pytest
import torch

from hepinf.model import BinnedModel

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
    "A function for pyhf's gradients by its torch backend; pyhf is back on NumPy after every call."

    def gradients(model, points, data):
        pyhf.set_backend("pytorch", precision="64b")
        try:
            found, data = [], torch.tensor(data, dtype=torch.float64)
            for point in points:
                theta = point.clone().requires_grad_()
                found.append(torch.autograd.grad(model.logpdf(theta, data)[0], theta)[0])
        finally:
            pyhf.set_backend("numpy")
        return torch.stack(found)

    yield gradients
    pyhf.set_backend("numpy")


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
            for sample in self.rng.sample(list(self.channels[channel]), self.rng.randint(1, len(self.channels[channel]))):
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
        scalars = [name for name, (kind, _) in self.sets.items() if kind in ("normfactor", "normsys", "lumi")]
        return {
            "version": "1.0.0",
            "channels": [{"name": c, "samples": list(samples.values())} for c, samples in self.channels.items()],
            "observations": observations,
            "measurements": [
                {"name": f"fit {k}", "config": {"poi": self.rng.choice([*scalars, "absent"]), "parameters": self.settings()}}
                for k in range(self.rng.randint(1, 3))
            ],
        }  # fmt: skip


def random_workspace(seed):
    return Generator(seed).workspace()


def in_pyhf(workspace, measurement=None, **settings):
    "pyhf's model and data; without a parameter of interest if the model does not have the measurement's."
    workspace = pyhf.Workspace(workspace)
    try:
        model = workspace.model(measurement_name=measurement, **settings)
    except pyhf.exceptions.InvalidModel:
        model = workspace.model(measurement_name=measurement, poi_name=None, **settings)
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
    assert ours.poi == config.poi_name
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


@pytest.mark.parametrize("seed", range(60))
def test_random_workspace_is_pyhfs(seed, pyhf_gradients):
    workspace = random_workspace(seed)
    before = copy.deepcopy(workspace)
    for k, measurement in enumerate([None, *(m["name"] for m in workspace["measurements"][1:])]):
        for codes in CODES.values():
            ours = BinnedModel.from_workspace(workspace, measurement=measurement, modifier_settings=codes)
            theirs, data = in_pyhf(workspace, measurement, modifier_settings=codes)
            assert_same_parameters(ours, theirs, data)
            assert_same_values(ours, theirs, ours.nominal[None], data, rtol=1e-10)  # a kink of the old codes
            points = random_points(ours, 20, seed + k)
            points = points[assert_same_values(ours, theirs, points, data, rtol=1e-10)]
            exact, (value, gradient, hessian) = autograd(ours, points), ours.derivatives(points, ours.observed)
            reference = pyhf_gradients(theirs, points[:4], data)
            known = reference.isfinite()  # pyhf has NaN where a bin expects and counts nothing
            for found in (exact, gradient, ours.derivatives(points, ours.observed, order=1)[1]):
                torch.testing.assert_close(found[:4][known], reference[known], rtol=1e-6, atol=1e-6)
                torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)
                assert found.isfinite().all()
            torch.testing.assert_close(value, ours.log_prob(points, ours.observed), rtol=1e-12, atol=0)
    assert workspace == before


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
        theirs, data = in_pyhf(json.loads(path.read_text()))
        assert_same_parameters(ours, theirs, data)
        points = random_points(ours, 100, seed=1)
        points = points[assert_same_values(ours, theirs, points, data, rtol=1e-8)]
        assert len(points) > 40
        exact = autograd(ours, points)
        for order in (1, 2):
            gradient = ours.derivatives(points, ours.observed, order=order)[1]
            torch.testing.assert_close(gradient, exact, rtol=1e-8, atol=1e-8)
        reference = pyhf_gradients(theirs, points[-3:], data)
        torch.testing.assert_close(exact[-3:], reference, rtol=1e-6, atol=1e-6)
        hessian = ours.derivatives(points[-1:], ours.observed)[2][0]
        reference = torch.func.hessian(lambda theta: ours.log_prob(theta, ours.observed))(points[-1])
        torch.testing.assert_close(hessian, reference, rtol=1e-8, atol=1e-8)


VALUES = [None, True, "text", "", [], {}, -1, 0, 2**70, 1e308, math.nan, math.inf, 10**400, [[1.0, [2.0]]], "two\nlines"]
VALUES += ["x" * 100_000]
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

    action = rng.choice(["delete", "duplicate", "replace", "replace", "paste", "rename", "rename", "length"])
    node, key = pick()
    if action == "delete":
        del node[key]
    elif action == "duplicate" and isinstance(node, list):
        node.insert(key, copy.deepcopy(node[key]))
    elif action == "duplicate":
        node[f"{key} 2"] = copy.deepcopy(node[key])
    elif action == "replace":
        node[key] = rng.choice(VALUES)
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
        pyhf.schema.validate(workspace, "workspace.json")
    except pyhf.exceptions.InvalidSpecification as error:
        return f"read, but against pyhf's schema: {str(error).splitlines()[0]:.200}"
    try:
        theirs, data = in_pyhf(workspace)
        init = theirs.config.suggested_init()
        reference = float(theirs.logpdf(init, data)[0])
        expected = theirs.expected_data(init).tolist()
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
            message = str(error)
            if len(message.splitlines()) != 1 or not message.strip():
                trouble = f"a message that is not one line: {message!r:.300}"
        except Exception as error:
            trouble = f"{type(error).__name__}: {error!s:.300}"
        slowest = max(slowest, time.perf_counter() - begin if trouble else 0.0)
        failures += [f"block {block}, case {case}, {', '.join(did)}: {trouble}"] if trouble else []
    assert not failures, "\n".join(failures)
    assert 5 < read < 95 and slowest < 5
