"""What a tired user passes to the summaries: it works, or one line says what is wrong."""

import math

import numpy as np
import pytest
import torch

import hepinf as hi
from hepinf.core.errors import InputError
from hepinf.summaries.losses import CrossEntropy
from hepinf.summaries.templates import WeightMatrix

N = 400
TRAINING = hi.TrainConfig(epochs=1, progress=False)


def events() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    "Two normal densities in two features: 50 expected signal events, 1000 of background."
    x = torch.randn(2 * N, 2, generator=torch.Generator().manual_seed(0))
    x[N:] += 1
    return x, torch.tensor([50 / N, 1000 / N]).repeat_interleave(N), ["s"] * N + ["b"] * N


def observable(signals=("s",)) -> hi.Observable:
    return hi.Observable(signals, bins=4, hidden=(8, 8), training=TRAINING)


@pytest.fixture(scope="module")
def learnt() -> hi.Observable:
    return observable().fit(*[events()[k] for k in (0, 2, 1)])


LABELS = {
    "integers": ([1] * N + [0] * N, [1]),
    "NumPy integers": (np.repeat([1, 0], N), np.array([1])),
    "floats": (np.repeat([1.0, 0.0], N), [1]),
    "booleans": (np.repeat([True, False], N), [True]),
    "a tensor": (torch.tensor([1] * N + [0] * N), ["1"]),
    "bytes": (np.array(["s"] * N + ["b"] * N, "S1"), ["s"]),
    "bytes and a signal in bytes": ([b"s"] * N + [b"b"] * N, [b"s"]),
    "NumPy words": (np.array(["s"] * N + ["b"] * N), [np.str_("s")]),
    "objects": (np.array(["s"] * N + ["b"] * N, object), ("s",)),
}


@pytest.mark.parametrize("labels, signals", LABELS.values(), ids=LABELS)
def test_labels_may_be_numbers_or_bytes(learnt, labels, signals):
    x, w, _ = events()
    other = observable(signals).fit(x, labels, w)
    torch.testing.assert_close(other.information, learnt.information)
    assert torch.equal(other(x[:50]), learnt(x[:50]))


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.repeat([1.0, math.nan], N), "event 400: the name or number of a process"),
        ([None] * 2 * N, "event 0: .* not None"),
        (["s"] * 5, "800 in all"),
        ("s", "not 's'"),
        (None, "not None"),
        (np.repeat([1, 0], N)[:, None], "a row of several"),
    ],
)
def test_what_is_no_label_is_named(labels, message):
    x, w, _ = events()
    with pytest.raises(InputError, match=message):
        observable().fit(x, labels, w)


def test_signals_are_a_list():
    for wrong in ("s", 1, b"s"):
        with pytest.raises(InputError, match="signals must be a list of process names"):
            hi.Observable(wrong)
    with pytest.raises(InputError, match="unknown process '2'; choose from: 1, 0"):
        observable([2]).fit(events()[0], np.repeat([1, 0], N))


def test_arrays_and_lists_are_events(learnt):
    x, _, _ = events()
    expected = learnt(x[:9])
    big_endian = x[:9].numpy().astype(">f8")
    for same in (x[:9].numpy(), x[:9].double().numpy(), x[:9].tolist(), big_endian, x[:9].flip(0).numpy()[::-1]):
        assert torch.equal(learnt(same), expected)
        assert torch.equal(learnt.score(same).argsort(0), learnt.score(x[:9]).argsort(0))
        assert learnt.ratios(same).shape == (9, 1)
    assert learnt(np.zeros((3, 2), int)).shape == (3,)


@pytest.mark.parametrize(
    "rows, message",
    [
        (torch.zeros(5, 1), "events have 1 column, this observable learnt 2"),
        (torch.zeros(5, 3), "events have 3 columns, this observable learnt 2"),
        (torch.zeros(2), r"\(events, features\) is needed, not \(2,\)"),
        (np.full((2, 2), np.nan), "NaN"),
        (["a", "b"], "element 0 is 'a'"),
        (None, "not None"),
    ],
)
def test_events_of_another_width_are_refused(learnt, rows, message):
    with pytest.raises(InputError, match=message):
        learnt(rows)


@pytest.mark.parametrize("factor", [0.0, -1.0])
@pytest.mark.parametrize("process", ["s", "b"])
def test_a_process_without_positive_weight_is_named(factor, process):
    x, w, labels = events()
    w = torch.where(torch.tensor([label == process for label in labels]), factor * w, w)
    with pytest.raises(InputError, match=f"process '{process}': its weights add up to"):
        observable().fit(x, labels, w)
    with pytest.raises(InputError, match=f"process '{process}': its weights add up to"):
        CrossEntropy(WeightMatrix.of(hi.Simulation.from_arrays(x, labels, w), ["s"]))


def test_a_split_without_weights_is_refused_and_one_with_a_negative_sum_keeps_it():
    x, w, labels = events()
    nothing = torch.cat([w[:N] * 0, w[N:]])
    cancelling = torch.cat([w[:N] * torch.tensor([1.0, -1.0]).repeat(N // 2), w[N:]])
    for weights in (nothing, cancelling):
        with pytest.raises(InputError, match="process 's': its weights add up to 0"):
            hi.Simulation.from_arrays(x, labels, weights).split([0.5, 0.5], seed=0)
    interference = hi.Simulation.from_arrays(x, labels, torch.cat([-w[:N], w[N:]]))
    for part in interference.split([0.5, 0.5], seed=0):
        assert part.yields == pytest.approx({"s": -50.0, "b": 1000.0}, rel=1e-5)


def test_values_that_single_precision_merges_are_refused():
    x, w, labels = events()
    for far in (x.double() + 1e9, x.double() * 1e-45, x + 1e7):
        with pytest.raises(InputError, match="column 0 lies near .* single precision cannot resolve"):
            observable().fit(far, labels, w)
    with pytest.raises(InputError, match="events, in single precision: .* NaN or infinite"):
        observable().fit(x.double() * 1e39, labels, w)
    with pytest.raises(InputError, match="the first is event 0"):
        observable().fit(x / torch.tensor([1.0, 0.0]), labels, w)
    with pytest.raises(InputError, match="every feature has the same value"):
        observable().fit(torch.full_like(x, 3.0), labels, w)


@pytest.mark.parametrize("unit", [1e-30, 1e-3, 1e30])
def test_units_do_not_matter(learnt, unit):
    "Squares of large or small features leave the range of single precision; their standard deviations do not."
    x, w, labels = events()
    other = observable().fit(x.double() * unit, labels, w)
    torch.testing.assert_close(other.information, learnt.information, rtol=1e-4, atol=0)


def test_a_constant_column_changes_nothing(learnt):
    x, w, labels = events()
    wide = torch.cat([x, torch.full((2 * N, 1), 0.1)], 1)
    other = observable().fit(wide, labels, w)
    assert float(other.information) == pytest.approx(float(learnt.information), rel=0.05)
    shifted = torch.cat([x, torch.full((2 * N, 1), 0.1 + 1e-9)], 1)
    assert float((other.ratios(wide) - other.ratios(shifted)).abs().max()) < 1e-3


def test_simulations_take_arrays():
    x, w, labels = events()
    pair = np.stack([0.9 * w.numpy(), 1.1 * w.numpy()])
    moved = (x.numpy() - 0.1, x.numpy() + 0.1)
    first = hi.Simulation.from_arrays(x.numpy(), labels, w.numpy(), {"rate": pair, "scale": moved})
    position = np.repeat([0, 1], N)
    varied = {"rate": (pair[0], pair[1])}
    second = hi.Simulation(x.numpy(), position, w.numpy(), ["s", "b"], weight_variations=varied)
    assert first.nuisances == ("rate", "scale") and second.processes == ("s", "b")
    assert first.yields == pytest.approx(second.yields)
    with pytest.raises(InputError, match="the fields pt, eta"):
        hi.Simulation.from_arrays(np.zeros(2, [("pt", "f4"), ("eta", "f4")]), ["s", "b"])
    with pytest.raises(InputError, match="a dictionary with pt"):
        hi.Simulation.from_arrays({"pt": x[:, 0]}, labels)
    with pytest.raises(InputError, match="missing numbers"):
        hi.Simulation.from_arrays(np.ma.masked_greater(x.numpy(), 2.0), labels)
