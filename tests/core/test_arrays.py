"""Signatures as the only declaration of what is taken."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hepinf.core.arrays import as_tensor, takes_arrays
from hepinf.core.errors import InputError


@takes_arrays
def pick(x: Float[Tensor, "events features"], rows: Int[Tensor, " rows"], scale: float | Float[Tensor, ""] = 1.0):
    return x[rows] * scale


@takes_arrays
def flagged(flags: Bool[Tensor, " n"]) -> Tensor:
    return flags


def test_each_kind_of_number_arrives_as_its_kind():
    for rows in ([1, 0], np.array([1, 0], np.uint32), np.array([1.0, 0.0]), torch.tensor([1, 0], dtype=torch.int32)):
        assert pick([[1, 2], [3, 4]], rows).tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert pick([[1, 2]], [0], 2.0).tolist() == [[2.0, 4.0]]
    assert pick(torch.ones(1, 2), [0], np.float32(2)).dtype == torch.float32
    assert flagged([True, False]).dtype == torch.bool
    with pytest.raises(InputError, match="rows: whole numbers are needed"):
        pick([[1.0]], [0.5])


def test_gradients_pass_and_tensors_are_not_copied():
    x = torch.ones(3, 2, requires_grad=True)
    pick(x, [0]).sum().backward()
    assert x.grad.sum() == 2
    assert as_tensor(x, "x") is x


def test_arrays_that_torch_refuses():
    exact = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    values = exact.numpy()
    frozen = values.copy()
    frozen.flags.writeable = False
    for same in (values.astype(">f4"), values[::-1][::-1], values.T.copy().T, frozen, values.astype(np.longdouble)):
        assert torch.equal(as_tensor(same, "x").double(), exact)
    assert torch.equal(as_tensor([exact[0], exact[1].float()], "x"), exact)
    assert torch.equal(as_tensor(np.ma.array(values), "x"), exact)


def test_a_class_takes_arrays_in_its_fields_and_methods_and_those_of_private_bases():
    class _Base:
        def twice(self, x: Float[Tensor, " n"]) -> Tensor:
            return 2 * x

    @takes_arrays
    @dataclass(frozen=True)
    class Line(_Base):
        slope: Float[Tensor, " features"]

        @staticmethod
        def zeros(like: Float[Tensor, "*batch"]) -> Tensor:
            return torch.zeros_like(like)

    line = Line(np.array([1.0, 2.0]))
    assert line.slope.tolist() == [1.0, 2.0] and line.twice([1, 2]).tolist() == [2.0, 4.0]
    assert Line.zeros([[1, 2]]).shape == (1, 2)
    with pytest.raises(InputError, match=r"slope: the shape \(features\) is needed, not \(1, 1\)"):
        Line([[1.0]])
