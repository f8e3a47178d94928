"""The type checker of the tests is at work: types, shapes and the names of axes, of arguments, results and fields."""

from collections.abc import Callable, Sequence

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from typechecker import check

from hepinf.core.checks import unknown_name
from hepinf.core.expansion import Exact


@check
def scaled(x: Float[Tensor, " bins"], y: Float[Tensor, " bins"], by: float = 1.0) -> Float[Tensor, "bins bins"]:
    return by * (x[:, None] * y if by else x)


def test_axes_of_one_name_have_one_size_in_a_call():
    two, three = torch.ones(2), torch.ones(3)
    assert scaled(two, two, by=2).shape == (2, 2) and scaled(three, three).shape == (3, 3)
    for wrong in ((two, three), (two, two[None]), (two, two, "1"), (two, two, 0)):
        with pytest.raises(TypeError):
            scaled(*wrong)


def test_an_inner_call_has_axes_of_its_own():
    @check
    def outer(x: Float[Tensor, " bins"], call: Callable) -> Float[Tensor, " bins"]:
        call()
        return x

    assert len(outer(torch.ones(3), lambda: scaled(torch.ones(2), torch.ones(2)))) == 3
    with pytest.raises(TypeError):
        outer(torch.ones(3), lambda: scaled(torch.ones(2), torch.ones(3)))


def test_elements_of_a_list_are_checked():
    @check
    def first(x: Sequence[Float[Tensor, " bins"]]) -> Float[Tensor, " bins"]:
        return x[0]

    assert len(first([torch.ones(2)])) == 2
    with pytest.raises(TypeError):
        first([torch.ones(2, 2)])


def test_functions_and_fields_of_the_package_are_checked():
    value, gradient, curvature = torch.zeros(2), torch.zeros(2, 3), torch.zeros(2, 3, 3)
    assert Exact(value, gradient, curvature).along(torch.zeros(2, 3)).shape == (2, 3)
    for wrong in ((value, gradient, torch.zeros(2, 2, 3)), (value, gradient[0], curvature)):
        with pytest.raises(TypeError, match="violates type hint"):
            Exact(*wrong)
    with pytest.raises(TypeError, match="violates type hint"):
        unknown_name(3, "x", ["y"])
