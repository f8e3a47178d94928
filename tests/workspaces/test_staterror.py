"The statistics of the simulation in published workspaces, profiled in closed form."

import os
from pathlib import Path

import pytest
import torch

import hepinf as hi
from hepinf.core.errors import InputError
from hepinf.workspaces.schema import example_workspace

FILES = sorted((Path(os.environ["HEPINF_DATA"]) / "workspaces").glob("*.json")) if "HEPINF_DATA" in os.environ else []


def states_errors(path: Path) -> bool:
    return '"staterror"' in path.read_text()


@pytest.mark.parametrize("path", [path for path in FILES if states_errors(path)], ids=lambda path: path.stem)
def test_profiled_factors_are_the_explicit_ones(path):
    "Best values, errors and log L (up to constants of the constraints) of the two fits of a published file."
    explicit = hi.BinnedModel.from_workspace(path)
    lite = explicit.with_noise("lite")
    assert lite.mc == "lite" and len(lite.parameters) < len(explicit.parameters)
    wide, narrow = hi.fit(explicit), hi.fit(lite)
    assert wide.ok == narrow.ok
    places = [explicit.index(name) for name in lite.parameter_names]
    torch.testing.assert_close(narrow.theta, wide.theta[places], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(narrow.error, wide.error[places], atol=1e-9, rtol=1e-5, equal_nan=True)
    nowhere = hi.fit(explicit, fixed={lite.parameter_names[0]: float(wide.theta[places[0]]) + 0.3})
    again = hi.fit(lite, fixed={lite.parameter_names[0]: float(wide.theta[places[0]]) + 0.3})
    difference = float((wide.log_prob - nowhere.log_prob) - (narrow.log_prob - again.log_prob))
    assert abs(difference) < 1e-5


def test_the_example_with_the_noise_of_its_variations():
    model = hi.BinnedModel.from_workspace(example_workspace())
    lite, together, apart = (
        float(hi.expected_uncertainty(model.with_noise(*form), "mu"))
        for form in (("lite",), ("full", "proportional"), ("full", "independent"))
    )
    assert abs(together / lite - 1) < 0.02 and apart > lite  # the second order of 4 % in a bin; noise is no information
    assert model.with_noise("full", "independent").to_workspace() == model.to_workspace()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda m: m.with_noise("full"), "a workspace does not say how they were simulated; choose from proportional"),
        (lambda m: m.with_noise("light"), "unknown mc 'light'; did you mean 'lite'?"),
        (lambda m: m.with_noise("full", "prop"), "choose from proportional, independent"),
    ],
)
def test_mistakes_are_named(make, said):
    with pytest.raises(InputError) as error:
        make(hi.BinnedModel.from_workspace(example_workspace()))
    assert said in str(error.value)


def test_a_workspace_without_errors_says_so():
    workspace = example_workspace()
    for channel in workspace["channels"]:
        for sample in channel["samples"]:
            sample["modifiers"] = [m for m in sample["modifiers"] if m["type"] != "staterror"]
    with pytest.raises(InputError, match="no staterror, so it does not say how well"):
        hi.BinnedModel.from_workspace(workspace).with_noise("lite")
