"""A grid of signals in one call: the stack is its models, CLs are those of single tests, failures are named."""

import json
import math
import os
import zipfile
from pathlib import Path

import pytest
import torch

from hepinf.binned.model import BinnedModel
from hepinf.binned.stack_tables import structure
from hepinf.binned.stacked import stack
from hepinf.core.errors import InputError
from hepinf.core.protocols import Experiment
from hepinf.infer.exclusion import exclusion
from hepinf.infer.grid import GridResult, hypotest_grid, upper_limit_grid
from hepinf.infer.hypotest import hypotest
from hepinf.infer.mle import fit
from hepinf.infer.upper_limit import upper_limit
from hepinf.workspaces.patch import apply_patch
from hepinf.workspaces.patched import shared_patch
from hepinf.workspaces.signals import SignalGrid, signal_patch


def mod(name, kind, data=None):
    return {"name": name, "type": kind, "data": data}


def background() -> dict:
    "Two channels with every kind of modifier; simulated statistics are shared with the signal."
    lumi, top = mod("lumi", "lumi"), mod("k_top", "normfactor")
    shape = mod("jes", "histosys", {"lo_data": [52.0, 19.0, 7.0], "hi_data": [47.0, 22.0, 9.0]})
    stat = mod("stat", "staterror", [2.0, 1.5, 0.9])
    samples = [
        {"name": "top", "data": [50.0, 20.0, 8.0], "modifiers": [top, shape, lumi, stat]},
        {"name": "fakes", "data": [5.0, 3.0, 2.0], "modifiers": [mod("fake", "shapesys", [2.0, 1.0, 1.0])]},
        {
            "name": "Z",
            "data": [8.0, 4.0, 1.0],
            "modifiers": [mod("xsec", "normsys", {"lo": 0.8, "hi": 1.3}), lumi, stat],
        },
    ]
    control = [{"name": "top", "data": [300.0], "modifiers": [top, mod("jes", "normsys", {"lo": 0.97, "hi": 1.02})]}]
    luminosity = {"name": "lumi", "inits": [1.0], "bounds": [[0.5, 1.5]], "auxdata": [1.0], "sigmas": [0.02]}
    return {
        "version": "1.0.0",
        "channels": [{"name": "SR", "samples": samples}, {"name": "CR", "samples": control}],
        "observations": [{"name": "SR", "data": [66.0, 30.0, 11.0]}, {"name": "CR", "data": [310.0]}],
        "measurements": [{"name": "m", "config": {"poi": "mu", "parameters": [luminosity]}}],
    }


def signal(k: int) -> list[dict]:
    "A signal with all that may vary: shape, rate, factor and simulated statistics, in two channels."
    data = [3.0 + 0.2 * k, 6.0 - 0.3 * k, 5.0 + 0.5 * k]
    jes = {"lo_data": [0.8 * x for x in data], "hi_data": [(1.1 + 0.02 * k) * x for x in data]}
    modifiers = [
        mod("mu", "normfactor"),
        mod("lumi", "lumi"),
        mod("jes", "histosys", jes),
        mod("xsec", "normsys", {"lo": 0.9 - 0.02 * k, "hi": 1.15}),
        mod("radiation", "normsys", {"lo": 0.95, "hi": 1.05 + 0.01 * k}),
        mod("stat", "staterror", [0.3, 0.4 + 0.05 * k, 0.3]),
    ]
    leak = {"name": f"signal{k}", "data": [2.0 + k], "modifiers": [mod("mu", "normfactor")]}
    sample = {"name": f"signal{k}", "data": data, "modifiers": modifiers}
    return [
        {"op": "add", "path": "/channels/0/samples/0", "value": sample},
        {"op": "add", "path": "/channels/1/samples/-", "value": leak},
    ]


def make(count: int = 6) -> SignalGrid:
    return SignalGrid.from_patches(background(), {f"S_{k}": signal(k) for k in range(count)}, axes=["k"])


@pytest.fixture(scope="module")
def grid() -> SignalGrid:
    return make()


@pytest.fixture(scope="module")
def stacked(grid):
    return stack([grid.measured(name) for name in grid.names], grid.known)


def models(grid: SignalGrid) -> list[BinnedModel]:
    return [BinnedModel.from_workspace(grid.workspace, patch=grid.patches[name]) for name in grid.names]


@pytest.mark.parametrize("point", ["start", "random", "zero"])
def test_a_stack_is_its_models(grid, stacked, point):
    "Value, gradient, Hessian and the factors of Gauss and Newton; also where the signal vanishes."
    assert isinstance(stacked, Experiment) and stacked.batch_shape == (6,)
    generator = torch.Generator().manual_seed(3)
    noise = 0.4 * torch.randn(6, len(stacked.names), generator=generator, dtype=torch.float64)
    theta = stacked.start + (noise if point == "random" else torch.zeros_like(noise))
    theta = theta.clamp(*stacked.bounds.T)
    if point == "zero":
        theta[:, stacked.names.index("mu")] = 0.0
    every = torch.arange(len(stacked.names))
    for approximate in (False, True):
        together = stacked.quadratic(theta, every, approximate)
        for k, model in enumerate(models(grid)):
            alone = model.at().quadratic(theta[k : k + 1], every, approximate)
            for name, whole in vars(together).items():
                torch.testing.assert_close(whole[k], vars(alone)[name][0], rtol=1e-10, atol=1e-10)
    value, gradient = stacked.value_and_gradient(theta)
    exact = stacked.quadratic(theta, every)
    torch.testing.assert_close(value, exact.value, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, exact.gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "codes", [{"normsys": "code1"}, {"histosys": "code2"}, {"histosys": "code0", "normsys": "code4"}]
)
def test_interpolation_codes_reach_the_stack(grid, codes):
    "The same settings in a stack and in a single model."
    reads = [grid.measured(name) for name in grid.names[:2]]
    likelihood = stack(reads, grid.known, codes)
    theta = (likelihood.start + 0.3).expand(2, -1)
    for k in range(2):
        model = BinnedModel.from_workspace(grid.workspace, patch=signal(k), modifier_settings=codes)
        torch.testing.assert_close(likelihood.log_prob(theta)[k], model.at().log_prob(theta[k]), rtol=0, atol=1e-10)


def test_fits_of_a_stack_are_single_fits(grid, stacked):
    together = fit(stacked)
    assert together.ok
    for k, model in enumerate(models(grid)):
        alone = fit(model)
        torch.testing.assert_close(together.log_prob[k], alone.log_prob, rtol=0, atol=1e-8)
        torch.testing.assert_close(together.theta[k], alone.theta, rtol=0, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_cls_of_a_grid_are_single_tests(grid, chunk):
    result = hypotest_grid(grid, chunk=chunk)
    assert result.ok and result.names == tuple(grid.names)
    for k, model in enumerate(models(grid)):
        alone = hypotest(model, 1.0)
        torch.testing.assert_close(result.observed[k], alone.cls, rtol=0, atol=1e-7)
        torch.testing.assert_close(result.expected[k], alone.cls_expected, rtol=0, atol=1e-7)


def test_limits_of_a_grid_are_single_limits(grid):
    result = upper_limit_grid(grid)
    for k in (0, 5):
        alone = upper_limit(models(grid)[k])
        torch.testing.assert_close(result.observed[k], alone.observed, rtol=1e-5, atol=0)
        torch.testing.assert_close(result.expected[k], alone.expected, rtol=1e-5, atol=0)
    assert result.quantity == "limit" and result["S_0"] == result.observed[0]


def test_other_structures_are_stacks_of_their_own(grid):
    "A signal without one of the modifiers, and one that is missing in a channel."
    patches = {**grid.patches, "few": signal(0)[:1], "plain": json.loads(json.dumps(signal(1)))}
    patches["plain"][0]["value"]["modifiers"].pop()
    mixed = SignalGrid.from_patches(background(), patches)
    reads = [mixed.measured(name) for name in mixed.names]
    assert len({structure(read, mixed.known) for read in reads}) == 3
    result = hypotest_grid(mixed)
    for name in ("few", "plain", "S_3"):
        alone = hypotest(BinnedModel.from_workspace(mixed.workspace, patch=patches[name]), 1.0)
        torch.testing.assert_close(result[name], alone.cls, rtol=0, atol=1e-7)


def test_a_patch_that_changes_the_data_is_taken_as_it_is(grid):
    other = [*signal(2), {"op": "replace", "path": "/observations/0/data/1", "value": 45.0}]
    mixed = SignalGrid.from_patches(background(), {**grid.patches, "seen": other})
    result = hypotest_grid(mixed)
    alone = hypotest(BinnedModel.from_workspace(mixed.workspace, patch=other), 1.0)
    torch.testing.assert_close(result["seen"], alone.cls, rtol=0, atol=1e-7)
    assert result["seen"] > result["S_2"]


def broken() -> dict[str, list]:
    "Patches that fail while they are read, compiled and fitted."
    bins, unknown, silent, negative = (json.loads(json.dumps(signal(1))) for _ in range(4))
    bins[0]["value"]["data"] = [1.0]
    unknown[0]["value"]["modifiers"][0]["type"] = "normfacto"
    for operation in silent:
        operation["value"]["data"] = [0.0] * len(operation["value"]["data"])
        operation["value"]["modifiers"] = operation["value"]["modifiers"][:1]
    return {
        "bins": bins,
        "unknown": unknown,
        "silent": silent,
        "place": [{"op": "add", "path": "/channels/9/samples/0", "value": {}}],
        "nothing": [],
        "list": {"op": "add"},
    }


def test_a_broken_patch_is_named_and_costs_nothing_else(grid):
    mixed = SignalGrid.from_patches(background(), {**grid.patches, **broken()})
    result, clean = hypotest_grid(mixed), hypotest_grid(grid)
    assert set(result.reasons) == set(broken()) and not result.ok
    torch.testing.assert_close(result.observed[:6], clean.observed, rtol=0, atol=1e-7)
    assert bool(result.observed[6:].isnan().all()) and bool(result.expected[6:].isnan().all())
    assert "normfactor" in result.reasons["unknown"] and "poi" in result.reasons["nothing"]
    assert "6 of 12" in result.problems[0]


def test_finished_points_are_taken_from_the_store(grid, tmp_path):
    "Also after an interruption; not if the question or the signal is another one."
    path, lines = tmp_path / "points.json", []

    def stop(text):
        lines.append(text)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hypotest_grid(grid, chunk=2, progress=stop, store=path)
    assert len(json.loads(path.read_text())["points"]) == 4
    lines.clear()
    result = hypotest_grid(grid, chunk=2, progress=lines.append, store=path)
    assert len(lines) == 1 and lines[0].startswith("6 of 6 points")
    torch.testing.assert_close(result.observed, hypotest_grid(grid).observed, rtol=0, atol=1e-8)
    lines.clear()
    upper_limit_grid(grid, progress=lines.append, store=path)
    assert len(lines) == 1
    changed = SignalGrid.from_patches(background(), {**grid.patches, "S_0": signal(9)})
    assert hypotest_grid(changed, store=path)["S_0"] != result["S_0"]


def test_a_release_is_read_from_folder_archive_and_patchset(grid, tmp_path):
    files = {"BkgOnly.json": grid.workspace, **{f"patch.{name}.json": patch for name, patch in grid.patches.items()}}
    with zipfile.ZipFile(tmp_path / "RegionX.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"RegionX/{name}", json.dumps(content))
        archive.writestr("RegionX/patch.S_99.json", "[{")
    (tmp_path / "notes.txt").write_text("not JSON")
    packed = SignalGrid.read(tmp_path, axes=["k"])
    assert packed.name == "RegionX" and set(packed.broken) == {"S_99"} and packed.coordinates["S_3"] == (3.0,)
    torch.testing.assert_close(hypotest_grid(packed).observed[:6], hypotest_grid(grid).observed, rtol=0, atol=1e-8)
    with pytest.raises(InputError, match="no workspace with patches"):
        (tmp_path / "empty").mkdir()
        SignalGrid.read(tmp_path / "empty")


@pytest.mark.parametrize("name", ["S_0", "S_5"])
def test_a_shared_patch_is_the_patch(grid, name):
    before = json.dumps(grid.workspace)
    assert shared_patch(grid.workspace, grid.patches[name]) == apply_patch(grid.workspace, grid.patches[name])
    assert json.dumps(grid.workspace) == before


def test_the_best_expected_region_is_taken_at_each_point():
    "Not the one with the best observation."
    names, places = ("a", "b", "c", "d"), torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.float64)

    def result(observed, median):
        median = torch.tensor(median, dtype=torch.float64)
        return GridResult(
            names, ("x", "y"), places, torch.tensor(observed, dtype=torch.float64), median[:, None].expand(4, 5)
        )

    first, second = result([0.2, 0.2, 0.01, 0.3], [0.02, 0.3, 0.2, math.nan]), result([0.01] * 4, [0.04, 0.1, 0.3, 0.2])
    plane = exclusion({"A": first, "B": second}, ["x", "y"])
    assert plane.regions == {"a": "A", "b": "B", "c": "A", "d": "B"}
    assert plane.tests.observed.tolist() == [0.2, 0.01, 0.01, 0.01]


def test_a_signal_of_three_numbers_per_bin_is_the_same_in_pyhf():
    pyhf = pytest.importorskip("pyhf")
    yields = {"SR": {"data": [1.0, 4.0, 6.0], "down": [0.8, 3.5, 5.0], "up": [1.3, 4.4, 7.2]}, "CR": {"data": [0.5]}}
    patch = signal_patch(background(), yields, name="mine")
    model = BinnedModel.from_workspace(background(), patch=patch)
    theirs = pyhf.Workspace(apply_patch(background(), patch))
    pdf = theirs.model()
    theta = model.point(mu=1.4, mine_uncertainty=-0.7)
    assert list(pdf.config.par_names) == model.parameter_names
    pyhf.set_backend("numpy")
    value = float(pdf.logpdf(theta.tolist(), theirs.data(pdf))[0])
    assert abs(value - float(model.at().log_prob(theta))) < 1e-8


DATA = Path(os.environ.get("HEPINF_DATA", "")) / "sbottom"


@pytest.mark.skipif(not os.environ.get("HEPINF_DATA") or not DATA.is_dir(), reason="the archives are not at hand")
@pytest.mark.parametrize("region, names", [("RegionA", ["sbottom_1300_330_200"]), ("RegionB", ["sbottom_600_380_250"])])
def test_published_signals_agree_with_pyhf(region, names):
    "Within what Minuit's tolerance leaves where the test has power, for one point of each region in its stack."
    pyhf = pytest.importorskip("pyhf")
    pytest.importorskip("iminuit")
    grid = SignalGrid.read_all(DATA)[region]
    assert len(grid) > 200 and not grid.broken
    some = {name: grid.patches[name] for name in [*grid.names[:5], *names]}
    result = hypotest_grid(SignalGrid.from_patches(grid.workspace, some))
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=1e-3, strategy=2), precision="64b")
    for name in names:
        workspace = pyhf.Workspace(grid.patched(name))
        pdf = workspace.model()
        observed, expected = pyhf.infer.hypotest(
            1.0, workspace.data(pdf), pdf, test_stat="qtilde", return_expected_set=True
        )
        ours = [float(result[name]), *result.expected[result.index(name)].tolist()]
        assert max(abs(a - float(b)) for a, b in zip(ours, [observed, *expected])) < 1e-4
