"""What every layer of a flow promises: an exact inverse, the log-determinant of autograd, gradients for all weights.

The layers are our own, those of FrEIA and normflows that act on vectors, and one of somebody else's, `Shear`: it is
written as the index page of `hepinf.flows` shows, and knows nothing of hepinf.
"""

import math

import pytest
import torch
from torch import nn

from hepinf.core.protocols import Bijection
from hepinf.flows.adapters import adapt, make_layer
from hepinf.flows.bijections import MaskedAffine, MaskedSpline, OnFirst, Permutation, Transform
from hepinf.flows.contract import check_layer
from hepinf.flows.coupling import AffineCoupling
from hepinf.flows.flow import Flow, flow_of, maf
from hepinf.flows.support import SupportTransform


class Shear(nn.Module):
    "Adds a multiple of the first dimension to all others."

    context_size = 0

    def __init__(self, dim: int):
        super().__init__()
        self.dim, self.slope = dim, nn.Parameter(torch.full((dim - 1,), 0.5))

    def _moved(self, x: torch.Tensor, sign: int) -> torch.Tensor:
        return torch.cat([x[:, :1], x[:, 1:] + sign * self.slope * x[:, :1]], 1)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> tuple[torch.Tensor, float]:
        return self._moved(x, 1), 0.0

    def inverse(self, z: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return self._moved(z, -1)


OWN = {
    "permutation": Permutation([2, 0, 3, 1]),
    "masked affine": MaskedAffine(4, hidden=(16, 16)),
    "masked affine, residual, context": MaskedAffine(4, 2, hidden=(16, 16), residual=True, activation="silu"),
    "masked affine of one dimension, context": MaskedAffine(1, 2, hidden=(8,)),
    "masked spline": MaskedSpline(4, hidden=(16,), bins=5),
    "masked spline as published": MaskedSpline(4, 2, hidden=(16,), bins=4, affine=False),
    "coupling": AffineCoupling(4, blocks=3, hidden=(16,)),
    "coupling, context": AffineCoupling(5, 3, blocks=2, hidden=(16,), activation="elu"),
    "leading dimensions": OnFirst(4, [MaskedAffine(2, hidden=(8,)), Permutation([1, 0]), MaskedSpline(2, hidden=(8,))]),
    "transform": Transform(
        [MaskedAffine(4, 2, hidden=(8,)), Permutation([3, 2, 1, 0]), AffineCoupling(4, 2, blocks=1)]
    ),
    "somebody else's": Shear(4),
}
SUBNET = {"subnet_constructor": {"hidden": [16], "activation": "silu"}}
SPLINE = {"num_input_channels": 4, "num_blocks": 1, "num_hidden_channels": 16, "num_bins": 5}
OTHERS = {  # path: arguments, and the argument that takes the width of a context ("" where dimensions say it)
    "FrEIA.modules.ActNorm": ({}, None),
    "FrEIA.modules.AffineCouplingOneSided": (SUBNET, ""),
    "FrEIA.modules.AllInOneBlock": (SUBNET, ""),
    "FrEIA.modules.GINCouplingBlock": (SUBNET, ""),
    "FrEIA.modules.GLOWCouplingBlock": (SUBNET, ""),
    "FrEIA.modules.HouseholderPerm": ({"n_reflections": 4}, None),
    "FrEIA.modules.InvAutoAct": ({}, None),
    "FrEIA.modules.LearnedElementwiseScaling": ({}, None),
    "FrEIA.modules.NICECouplingBlock": (SUBNET, ""),
    "FrEIA.modules.PermuteRandom": ({}, None),
    "FrEIA.modules.RNVPCouplingBlock": (SUBNET, ""),
    "normflows.flows.ActNorm": ({"shape": [4]}, None),
    "normflows.flows.AffineConstFlow": ({"shape": [4]}, None),
    "normflows.flows.AffineCouplingBlock": (
        {"param_map": {"class": "normflows.nets.MLP", "layers": [2, 16, 4]}},
        None,
    ),
    "normflows.flows.AutoregressiveRationalQuadraticSpline": (SPLINE, "num_context_channels"),
    "normflows.flows.CoupledRationalQuadraticSpline": (SPLINE, "num_context_channels"),
    "normflows.flows.InvertibleAffine": ({"num_channels": 4}, None),
    "normflows.flows.LULinearPermute": ({"num_channels": 4}, None),
    "normflows.flows.MaskedAffineAutoregressive": ({"features": 4, "hidden_features": 16}, "context_features"),
    "normflows.flows.Permute": ({"num_channels": 4}, None),
}


def other(path: str, context: int, **options) -> Bijection:
    arguments, name = OTHERS[path]
    return make_layer(path, 4, context, arguments=arguments | ({name: context} if context and name else {}), **options)


CASES = [(path, context) for path, (_, name) in OTHERS.items() for context in ((0, 2) if name is not None else (0,))]


@pytest.mark.parametrize("name", OWN)
def test_our_layers_keep_the_contract(name):
    layer = OWN[name]
    assert isinstance(layer, Bijection)
    check = check_layer(layer)
    assert check.ok, check


@pytest.mark.parametrize(("path", "context"), CASES)
def test_layers_of_other_libraries_keep_the_contract(path, context):
    layer = other(path, context)
    assert isinstance(layer, Bijection)
    check = check_layer(layer)
    assert check.ok, check


@pytest.mark.parametrize("path", ["normflows.flows.MaskedAffineAutoregressive", "normflows.flows.LULinearPermute"])
def test_a_layer_of_normflows_can_be_used_the_other_way_around(path):
    assert check_layer(other(path, 0, reverse=True)).ok
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    ahead, back = other(path, 0), other(path, 0, reverse=True)
    torch.testing.assert_close(ahead(back(x)[0])[0], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("path", "arguments", "figure"),
    [
        ("FrEIA.modules.InvAutoFC", {}, "inverse64"),
        ("FrEIA.modules.OrthogonalTransform", {}, "inverse64"),
        ("normflows.flows.Planar", {"shape": [4], "act": "leaky_relu"}, "inverse64"),
        ("normflows.flows.Radial", {"shape": [4]}, "inverse64"),
    ],
)
def test_the_check_finds_layers_that_are_not_exact(path, arguments, figure):
    check = check_layer(make_layer(path, 4, arguments=arguments))
    assert not check.ok and not getattr(check, figure) < 1e-9


@pytest.mark.parametrize(("path", "context"), CASES)
def test_a_flow_of_such_a_layer_has_hard_supports_and_is_saved(path, context, tmp_path):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(300, 4, generator=generator, dtype=torch.float64)
    c = 2 + torch.randn(300, context, generator=generator, dtype=torch.float64) if context else None
    own = make_layer("hepinf.flows.bijections.MaskedAffine", 4, context, arguments={"hidden": [8]})
    flow = flow_of([other(path, context, seed=3), own], lower=[0.0] * 4, upper=[1.0, math.inf, math.inf, 1.0])
    flow.standardise(x, c)
    one = None if c is None else c[0]
    draws = flow.sample(1000, one, seed=5)
    assert bool(((draws > flow.support.lower) & (draws < flow.support.upper)).all())
    assert flow(-x[0], one) == -math.inf and bool(flow(x, c).isfinite().all())
    again = Flow.load(flow.save(tmp_path / "flow"))
    assert torch.equal(again(x, c), flow(x, c))
    assert torch.equal(again.sample(10, one, seed=6), flow.sample(10, one, seed=6))


@pytest.mark.parametrize("library", ["FrEIA.modules.ActNorm", "normflows.flows.ActNorm"])
def test_a_layer_that_starts_from_data_starts_when_the_flow_is_standardised(library):
    arguments = {"shape": [3]} if library.startswith("normflows") else {}
    flow = flow_of(
        [OWN["masked affine"].__class__(3, hidden=(8,), seed=2), make_layer(library, 3, arguments=arguments)]
    )
    before = [w.clone() for w in flow.transform.layers[1].parameters()]
    x = 5 + 3 * torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        flow.transform.layers[0].network.bias[:3] = 4.0  # what comes in is far from standard
    flow(x)
    assert all(torch.equal(a, b) for a, b in zip(before, flow.transform.layers[1].parameters()))  # not by a call
    flow.standardise(x)
    z = flow.to_latent(x)[0]
    assert z.mean(0).abs().max() < 1e-4 and (z.std(0) - 1).abs().max() < 1e-3
    weights = [w.clone() for w in flow.transform.layers[1].parameters()]
    flow(x[:100] * 2)
    assert all(torch.equal(a, b) for a, b in zip(weights, flow.transform.layers[1].parameters()))


def test_a_flow_of_objects_works_but_is_not_saved(tmp_path):
    import FrEIA

    flow = flow_of([adapt(FrEIA.modules.ActNorm([(2,)]), 2)])
    assert flow.sample(3).shape == (3, 2)
    with pytest.raises(ValueError, match="make_layer"):
        flow.save(tmp_path / "flow")
    with pytest.raises(ValueError, match="FrEIA or normflows"):
        adapt(nn.Linear(2, 2), 2)


def test_only_known_layers_are_made():
    for path in ("os.system", "FrEIA.modules.GaussianMixtureModel", "normflows.flows.HamiltonianMonteCarlo"):
        with pytest.raises(ValueError, match="unknown layer"):
            make_layer(path, 2)
    with pytest.raises(ValueError, match="unknown layer"):
        make_layer("normflows.flows.Residual", 2, arguments={"net": {"class": "subprocess.Popen"}})


def test_the_support_is_a_bijection_on_its_support():
    support = SupportTransform(3, [0.0, -math.inf, 0.0], [1.0, 2.0, math.inf])
    x = torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    support.fit(x)
    assert isinstance(support, Bijection)
    u, log_det = support(x)
    torch.testing.assert_close(support.inverse(u), x, rtol=1e-9, atol=1e-9)
    jacobian = torch.autograd.functional.jacobian(lambda x: support(x)[0].sum(0), x).transpose(0, 1)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det, rtol=1e-8, atol=1e-8)


def test_a_chain_of_flows_in_different_precisions_agrees():
    flow = maf(3, hidden=(8,))
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    single = flow(x)
    flow.transform.double()
    assert (flow(x) - single).abs().max() < 1e-4
