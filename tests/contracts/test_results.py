"""What every answer of hepinf promises: it is frozen, says what is wrong with it, and shows itself as a table.

Every subclass of `Result` in the package is found by import; those that are cheap to make are made here.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable

import pytest
import torch

import hepinf
from hepinf.core.results import Estimate, Result
from hepinf.diagnostics.c2st import C2ST
from hepinf.diagnostics.calibration import Calibration, SBCTest, calibration_curve, sbc_test
from hepinf.diagnostics.fractions import ModeFractions, mode_fractions
from hepinf.diagnostics.latent import LatentNormality, latent_normality
from hepinf.posterior.correction import CorrectedPosterior
from hepinf.posterior.misspecification import MisspecificationCheck
from hepinf.posterior.summary import PosteriorSummary
from hepinf.stats.chains import Chains
from hepinf.stats.importance import WeightedEstimate
from hepinf.stats.toys import PullSummary, pull_summary


def everything() -> list[type[Result]]:
    "All classes of results in the package; a module that needs an extra which is not installed is left out."
    for module in pkgutil.walk_packages(hepinf.__path__, "hepinf."):
        try:
            importlib.import_module(module.name)
        except ImportError:
            continue
    classes, stack = set(), [Result]
    while stack:
        below = [one for one in stack.pop().__subclasses__() if one.__module__.startswith("hepinf.")]
        classes |= set(below)
        stack += below
    return sorted(classes, key=lambda one: one.__qualname__)


CLASSES = everything()


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chains(shift: float) -> Chains:
    x = normal(1000, 4, 2)
    x[:, 3] += shift
    log_prob = -0.5 * x.square().sum(-1)
    return Chains(x, log_prob, ["mu", "jes"], torch.full((4,), 0.8, dtype=torch.float64), 0.5, 0, 4000)


def ranks() -> torch.Tensor:
    return torch.rand(200, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def classifier(z: float) -> C2ST:
    parts = (Estimate(0.5 + 0.01 * z, 0.01), Estimate(0.5, 0.01), Estimate(0.0, 0.001))
    return C2ST(*parts, z, 0.1, 1000, ("a classifier tells the samples apart",) if z > 3 else ())


def corrected(*problems: str) -> CorrectedPosterior:
    x, estimate = normal(100, 2), WeightedEstimate(0.5, 0.01)
    log_weights = torch.zeros(100, dtype=torch.float64)
    return CorrectedPosterior(
        ["mu", "jes"], x, x, log_weights, estimate, estimate, "importance", None, (), tuple(problems)
    )


def summarised(*problems: str) -> PosteriorSummary:
    x = normal(5, 2)
    return PosteriorSummary(["mu", "jes"], x[0], x[1].abs(), normal(2, 3), normal(2, 2), x[2], tuple(problems))


# a good answer and a bad one of each class
MAKE: dict[type[Result], tuple[Callable[[], Result], Callable[[], Result]]] = {
    Chains: (lambda: chains(0.0), lambda: chains(3.0)),
    PullSummary: (lambda: pull_summary(normal(1000)), lambda: pull_summary(2 * normal(1000))),
    C2ST: (lambda: classifier(0.5), lambda: classifier(9.0)),
    LatentNormality: (lambda: latent_normality(normal(500, 3)), lambda: latent_normality(2 * normal(500, 3))),
    Calibration: (
        lambda: calibration_curve(ranks(), repeats=20),
        lambda: calibration_curve(0.5 + 0.1 * (ranks() - 0.5), repeats=20),
    ),
    SBCTest: (lambda: sbc_test(ranks()), lambda: sbc_test(ranks() ** 2)),
    CorrectedPosterior: (corrected, lambda: corrected("an example")),
    PosteriorSummary: (summarised, lambda: summarised("an example")),
    MisspecificationCheck: (
        lambda: MisspecificationCheck(1.0, 0.5),
        lambda: MisspecificationCheck(3.0, 0.001, ("an example",)),
    ),
    ModeFractions: (
        lambda: mode_fractions(normal(500, 1), normal(500, 1, seed=2), torch.tensor([[-1.0], [1.0]])),
        lambda: ModeFractions(*(torch.tensor([0.5, 0.5]) for _ in range(4)), problems=("an example",)),
    ),
}


@pytest.mark.parametrize("one", CLASSES, ids=lambda one: one.__qualname__)
def test_a_class_of_results_is_frozen_and_says_what_is_wrong(one):
    assert dataclasses.is_dataclass(one) and one.__dataclass_params__.frozen
    assert isinstance(one.__dict__.get("__doc__"), str)
    fields = [field.name for field in dataclasses.fields(one)]
    lazy = "problems" in one.__dict__ and "problems" not in fields
    assert lazy or fields[-1] == "problems", "the problems come last, or are computed when asked for"
    assert one.__repr__ is Result.__repr__, "it shows itself as its table"


@pytest.mark.parametrize("one", MAKE, ids=lambda one: one.__qualname__)
def test_an_answer_shows_itself_with_its_problems(one):
    for make, good in zip(MAKE[one], (True, False)):
        result = make()
        assert isinstance(result, one)
        assert result.ok == good == (not result.problems), result.problems
        assert isinstance(result.problems, tuple) and all(isinstance(text, str) and text for text in result.problems)
        rows = result.rows()
        assert len(rows) > 1 and len({len(row) for row in rows}) == 1
        assert all(isinstance(cell, str) for row in rows for cell in row)
        shown = result._repr_markdown_()
        assert shown == result.table() and shown.startswith("| ")
        assert repr(result).splitlines() == [line for line in shown.replace("**", "").splitlines() if line]
        assert all(text in shown for text in result.problems)
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.problems = ()


def test_an_answer_gives_a_parameter_by_name():
    assert chains(0.0)["jes"].shape == (1000, 4)
    with pytest.raises(ValueError, match="did you mean 'jes'"):
        chains(0.0)["jss"]
    for answer in (corrected(), summarised()):
        assert isinstance(answer["mu"], Estimate)
        with pytest.raises(ValueError, match="did you mean 'jes'"):
            answer["jss"]
