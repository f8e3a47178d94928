"""What the field accepts is accepted, and what is something else is named: small inputs after public reports."""

import copy
import gzip
import json
import math

import pytest
import torch

from hepinf.binned.model import BinnedModel
from hepinf.core.errors import InputError
from hepinf.infer.goodness import goodness_of_fit
from hepinf.infer.mle import fit
from hepinf.infer.upper_limit import upper_limit
from hepinf.workspaces.measurement import read_workspace
from hepinf.workspaces.schema import example_workspace


def modifier(name, kind, data=None):
    return {"name": name, "type": kind, "data": data}


def sample(name, data, *modifiers):
    return {"name": name, "data": data, "modifiers": list(modifiers)}


def workspace(observed, *samples, poi="mu", parameters=()):
    "One channel."
    return {
        "version": "1.0.0",
        "channels": [{"name": "SR", "samples": list(samples)}],
        "observations": [{"name": "SR", "data": observed}],
        "measurements": [{"name": "m", "config": {"poi": poi, "parameters": list(parameters)}}],
    }


def interference():
    "A signal with a negative interference in its first bin, over a background."
    xs = modifier("xs", "normsys", {"lo": 0.9, "hi": 1.1})
    return workspace(
        [45.0, 30.0],
        sample("signal", [6.0, 8.0], modifier("mu", "normfactor")),
        sample("interference", [-5.0, 1.0], modifier("k", "normfactor"), xs),
        sample("background", [48.0, 22.0], modifier("mc", "staterror", [3.0, 2.0])),
    )


def logpdf(content, theta=None, **options):
    "pyhf's log L at its start, or at a point."
    pyhf = pytest.importorskip("pyhf")
    pyhf.set_backend("numpy")
    theirs = pyhf.Workspace(content)
    model = theirs.model(**options)
    point = model.config.suggested_init() if theta is None else theta
    return float(model.logpdf(point, theirs.data(model))[0])


def test_negative_yields_have_pyhfs_likelihood():
    content = interference()
    model = BinnedModel.from_workspace(content)
    assert abs(float(model.log_prob(model.nominal, model.observed)) - logpdf(content)) < 1e-8
    moved = model.nominal + 0.1
    assert abs(float(model.log_prob(moved, model.observed)) - logpdf(content, moved.tolist())) < 1e-8
    assert fit(model).ok


def test_a_negative_total_is_said_at_the_door_and_in_the_fit():
    content = workspace([3.0], sample("s", [1.0], modifier("mu", "normfactor")), sample("b", [-4.0]))
    model = BinnedModel.from_workspace(content)
    assert "channel 'SR', bin 0" in model.problems[0] and "-3" in model.problems[0]
    assert "channel 'SR', bin 0" in fit(model).problems[0]


def test_counts_where_nothing_is_expected_name_the_bin():
    content = workspace([1.0, 5.0], sample("s", [0.0, 2.0], modifier("mu", "normfactor")), sample("b", [0.0, 3.0]))
    model = BinnedModel.from_workspace(content)
    for result in (fit(model), upper_limit(model), goodness_of_fit(model)):
        assert any("channel 'SR', bin 0: 1 observed where nothing is expected" in line for line in result.problems)


def test_a_patch_that_removes_a_channel_leaves_its_observation():
    patch = [{"op": "remove", "path": "/channels/1"}]
    read = read_workspace(example_workspace(), patch=patch)
    assert [channel["name"] for channel in read.channels] == ["signal_region"] and read.observed == [55.0, 29.0]
    assert read.problems == ("observations of channels that the model does not have: 'control_region'",)
    model = BinnedModel.from_workspace(example_workspace(), patch=patch)
    assert "control_region" in str(model.table()) and model.to_workspace()["observations"][1]["data"] == [205.0]


def test_an_unnamed_measurement_is_read():
    content = example_workspace()
    content["measurements"][0]["name"] = ""
    model = BinnedModel.from_workspace(content)
    assert model.poi == "mu" and model.measurement == ""
    again = BinnedModel.from_workspace(model.to_workspace(), measurement="")
    assert again.parameter_names == model.parameter_names


@pytest.mark.parametrize("poi", ["mu mu2", "nu"])
def test_a_parameter_of_interest_that_is_not_there_is_quoted(poi):
    content = example_workspace()
    content["measurements"][0]["config"]["poi"] = poi
    model = BinnedModel.from_workspace(content)
    with pytest.raises(InputError, match=repr(poi)):
        upper_limit(model)


def test_versions_of_the_schema():
    for version in ("1.0.0", "1.0.1", "1.1.0"):
        assert read_workspace(example_workspace() | {"version": version}).poi == "mu"


def test_normsys_factor_of_zero_is_the_limit_of_small_ones():
    def model(low):
        xs = modifier("xs", "normsys", {"lo": low, "hi": 1.4})
        return BinnedModel.from_workspace(
            workspace([40.0], sample("s", [5.0], modifier("mu", "normfactor")), sample("b", [30.0], xs))
        )

    zero, small = model(0.0), model(1e-12)
    points = torch.tensor([[x, 1.0] for x in (-1.5, -1.0, -0.4, 0.0, 0.7, 2.0)], dtype=torch.float64)
    points = points if zero.parameter_names[0] == "xs" else points.flip(-1)
    torch.testing.assert_close(zero.expected(points), small.expected(points), rtol=1e-9, atol=1e-9)
    value, gradient, hessian = zero.derivatives(points, zero.observed)
    assert all(bool(torch.isfinite(x).all()) for x in (value, gradient, hessian))
    best = fit(zero)
    assert best.converged and abs(float(best["mu"]) - 2.0) < 1e-3


def test_gzip_and_text_are_read(tmp_path):
    content = example_workspace()
    packed = tmp_path / "workspace.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(content).encode()))
    for source in (packed, str(packed), json.dumps(content), json.dumps(content, indent=2)):
        assert read_workspace(source).observed == [205.0, 55.0, 29.0]


KINDS = {
    "measurement.xml": (
        '<!DOCTYPE Combination SYSTEM "HistFactorySchema.dtd"><Combination></Combination>',
        "HistFactory XML",
    ),
    "SR.xml": ('<?xml version="1.0"?>\n<!-- region -->\n<Channel Name="SR"/>', "HistFactory XML"),
    "card.txt": ("# counting\nimax 1\njmax 1\nkmax *\nbin b1\nobservation 3\n", "datacard"),
    "hs3.json": ('{"distributions": [], "metadata": {"hs3_version": "0.2"}}', "HS3"),
    "patchset.json": ('{"version": "1.0.0", "patches": [], "metadata": {}}', "patchset"),
    "patch.json": ('[{"op": "add", "path": "/channels/0/samples/0", "value": {}}]', "JSON Patch"),
    "page.json": ("<!doctype html><html></html>", "web page"),
    "empty.json": ("", "empty"),
    "histograms.root": ("root\x00\x00", "ROOT file"),
    "archive.zip": ("PK\x03\x04", "zip archive"),
}


@pytest.mark.parametrize("name", KINDS)
def test_another_kind_of_file_is_named(tmp_path, name):
    text, kind = KINDS[name]
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as error:
        read_workspace(path)
    assert kind in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_a_folder_is_named(tmp_path):
    (tmp_path / "BkgOnly.json").write_text("{}")
    with pytest.raises(InputError, match=r"a folder; name a file in it, such as BkgOnly\.json"):
        read_workspace(tmp_path)


def test_text_that_is_no_workspace_is_refused_in_a_line():
    text = json.dumps({**example_workspace(), "channels": [{"name": "x" * 300}]})
    with pytest.raises(InputError) as error:
        read_workspace(text)
    assert len(str(error.value)) < 500 and "samples" in str(error.value)


def test_nothing_expected_and_nothing_seen_has_a_limit():
    content = workspace([0.0], sample("s", [10.0], modifier("mu", "normfactor")), sample("b", [0.0]))
    model = BinnedModel.from_workspace(content)
    best, limit = fit(model), upper_limit(model)
    assert best.ok and float(best["mu"]) == 0.0
    assert limit.ok and abs(float(limit.observed) - 0.192) < 2e-3  # by formula; exact 2.996 / 10
    by_toys = upper_limit(model, toys=2000, seed=1)
    assert abs(float(by_toys.observed) - -math.log(0.05) / 10) < 3 * float(by_toys.error[0])


def test_a_yield_of_zero_at_the_best_point_is_found():
    shape = modifier("h", "histosys", {"lo_data": [0.0], "hi_data": [9.0]})
    content = workspace([0.0], sample("s", [2.0], modifier("mu", "normfactor")), sample("b", [3.0], shape))
    best = fit(BinnedModel.from_workspace(content))
    assert best.ok and float(best["mu"]) == 0.0 and abs(float(best["h"]) + 1) < 1e-6


def test_reading_leaves_the_input_alone():
    content = interference()
    before = copy.deepcopy(content)
    BinnedModel.from_workspace(content, patch=[{"op": "replace", "path": "/observations/0/data/0", "value": 1.0}])
    assert content == before
