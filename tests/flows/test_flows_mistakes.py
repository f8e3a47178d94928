"""Samples without a density, contexts and points that do not fit, arrays where tensors are taken."""

import numpy as np
import pytest
import torch

import hepinf as hi
from hepinf.core.errors import InputError
from hepinf.unbinned.conditional import train_conditional

SAMPLE = torch.randn(400, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_contexts_of_samples():
    flow = hi.maf(3, 2)
    assert flow.sample(4, torch.zeros(5, 1, 2)).shape == (5, 4, 3)
    assert flow.sample(4, np.zeros((4, 2))).shape == (4, 3) and flow.sample(4, [0, 1]).shape == (4, 3)
    assert flow.sample(1, torch.zeros(5, 2)).shape == (5, 3)
    for shape, message in (((5, 2), r"\(5, 1, 2\)"), ((5, 3), r"needs the shape \(..., 2\)"), ((0, 2), "0 rows for 4")):
        with pytest.raises(InputError, match=message):
            flow.sample(4, torch.zeros(shape))


def test_flows_take_arrays():
    flow = hi.maf(3, lower=np.full(3, -9.0, ">f8"))
    flow.standardise(SAMPLE.numpy()[::-1])
    expected = flow.log_prob(SAMPLE[:5])
    for same in (SAMPLE[:5].numpy(), SAMPLE[:5].tolist(), SAMPLE[:5].numpy().astype(">f8")):
        torch.testing.assert_close(flow.log_prob(same), expected)
    for wrong in (SAMPLE[:5, :2], SAMPLE[0, :2], ["a"]):
        with pytest.raises(InputError):
            flow.log_prob(wrong)


TWIN = torch.cat([SAMPLE[:, :2], SAMPLE[:, :1]], 1)
DEGENERATE = {
    "equal columns": (TWIN, "dimension 0 and dimension 2 are linear functions of each other"),
    "equal columns, single precision": (torch.cat([SAMPLE, SAMPLE[:, :1].float().double()], 1)[:, [0, 1, 3]], "linear"),
    "a sum": (torch.cat([SAMPLE[:, :2], SAMPLE[:, :2].sum(1, keepdim=True)], 1), "dimension 0 and dimension 1 and"),
    "a constant": (torch.cat([SAMPLE[:, :2], torch.full((400, 1), 7.0)], 1), "dimension 2 has the same value"),
    "an edge": (SAMPLE.clamp_min(-1.0), "dimension 0: 1.% of the rows pile up on exactly -1"),
    "whole numbers": (torch.cat([SAMPLE[:, :2], (3 * SAMPLE[:, 2:]).round()], 1), "dimension 2: .* uniform noise"),
}


@pytest.mark.parametrize("sample, message", DEGENERATE.values(), ids=DEGENERATE)
def test_samples_without_a_density_are_refused(sample, message):
    with pytest.raises(InputError, match=message):
        hi.maf(3).standardise(sample)
    named = message
    for k, name in enumerate("abc"):
        named = named.replace(f"dimension {k}", f"'{name}'")
    with pytest.raises(InputError, match=named):
        hi.NFLikelihood.train(sample, ["a", "b", "c"], training=hi.TrainConfig(steps=2, batch_size=64, progress=False))


def test_narrow_and_far_samples_have_a_density():
    "A correlation of 1 - 1e-6, and a place of 1e9 in units of the width."
    narrow = torch.stack([SAMPLE[:, 0], SAMPLE[:, 0] + 1e-3 * SAMPLE[:, 1]], 1)
    far = 1e9 + SAMPLE
    hi.maf(2).standardise(narrow)
    flow = hi.maf(3)
    flow.standardise(far)
    near = hi.maf(3)
    near.standardise(SAMPLE)
    torch.testing.assert_close(flow.log_prob(far), near.log_prob(SAMPLE), rtol=1e-4, atol=1e-4)


def test_events_of_a_window_pile_up_nowhere():
    space = hi.Coordinates({"m": "m"}, {"m": (50.0, 550.0)})
    training = hi.TrainConfig(steps=2, batch_size=64, progress=False)
    x = 50 + hi.Gamma(1.0, 70.0).sample((400, 1), seed=1)
    assert train_conditional(x.numpy(), None, space, training=training).size == 1
    for bad, message in ((x.clamp_min(70.0), "'m': .* pile up on exactly 70"), (0 * x + 60, "'m' has the same value")):
        with pytest.raises(InputError, match=message):
            train_conditional(bad, None, space, training=training)
    with pytest.raises(InputError, match="a single column is x"):
        train_conditional(x[:, 0], None, space, training=training)
