"""Numbers that no change of the code's structure may change: everything here is compared with `golden/numbers.json`.

A number that was meant to change is written anew by `python tests/test_golden.py --write`; the diff of the JSON file
then shows what moved, and belongs into the same commit as the reason. Four of the runs of `hepinf sweep smoke` are
compared in `test_sweep.py`; `python tests/test_golden.py --sweep FOLDER` freezes those of a finished sweep.
"""

import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from frozen import FOLDER, Numbers, differences, read, sweep_numbers, write

# One name a line: where a name moves, one line follows it.
# isort: off
from hepinf.binned.interpolation import RATE_CODES
from hepinf.binned.interpolation import SHAPE_CODES
from hepinf.binned.interpolation import even_part
from hepinf.binned.interpolation import rate_polynomial
from hepinf.binned.interpolation import interpolate_rate
from hepinf.binned.interpolation import interpolate_shape
from hepinf.binned.model import BinnedModel
from hepinf.binned.processes import Parameter
from hepinf.binned.processes import Process
from hepinf.binned.processes import Variation
from hepinf.diagnostics.c2st import c2st
from hepinf.diagnostics.calibration import calibration_curve
from hepinf.diagnostics.calibration import contraction
from hepinf.diagnostics.calibration import sbc_test
from hepinf.diagnostics.calibration import sbc_ranks
from hepinf.diagnostics.calibration import tarp_ranks
from hepinf.diagnostics.hpd import hpdi_error
from hepinf.diagnostics.latent import latent_normality
from hepinf.diagnostics.two_sample import correlation_distance
from hepinf.diagnostics.two_sample import ks
from hepinf.diagnostics.two_sample import sliced_wasserstein
from hepinf.diagnostics.two_sample import wasserstein
from hepinf.flows.flow import Flow
from hepinf.flows.flow import arqs
from hepinf.flows.flow import coupling_flow
from hepinf.flows.flow import maf
from hepinf.flows.splines import rational_quadratic
from hepinf.flows.splines import rational_quadratic_inverse
from hepinf.infer.hmc import hmc
from hepinf.infer.hypotest import discovery
from hepinf.infer.hypotest import hypotest
from hepinf.infer.upper_limit import upper_limit
from hepinf.infer.goodness import goodness_of_fit
from hepinf.infer.impacts import impacts
from hepinf.infer.intervals import interval
from hepinf.infer.mle import fit as maximise
from hepinf.posterior.correction import correct
from hepinf.posterior.joint import Joint
from hepinf.posterior.mc_statistics import negative_binomial
from hepinf.problems.blobs2d import BINARY
from hepinf.problems.blobs2d import MULTICLASS
from hepinf.problems.blobs2d import unbinned_limit as blobs_limit
from hepinf.problems.bump import BreitWigner
from hepinf.problems.bump import Exponential
from hepinf.problems.bump import pseudo_data
from hepinf.problems.lhc_toy import ToyLikelihood
from hepinf.problems.mixture3d import BENCHMARKS
from hepinf.problems.mixture3d import classifier_templates
from hepinf.problems.mixture3d import best_bins
from hepinf.problems.mixture3d import sample_background
from hepinf.problems.mixture3d import sample_signal
from hepinf.problems.mixture3d import shift_tangents
from hepinf.problems.mixture3d import unbinned_information
from hepinf.problems.standin import ew_like
from hepinf.problems.standin import flavor_like
from hepinf.problems.vh import vh_joint as vh_joint
from hepinf.stats.importance import importance_ess
from hepinf.stats.importance import kl_forward
from hepinf.stats.importance import kl_forward_weighted
from hepinf.stats.importance import kl_reverse
from hepinf.stats.importance import log_evidence
from hepinf.stats.importance import pareto_k
from hepinf.stats.importance import resample
from hepinf.stats.importance import weighted_moments
from hepinf.stats.importance import weighted_quantiles
from hepinf.stats.priors import Gamma
from hepinf.stats.priors import LogNormal
from hepinf.stats.priors import Normal
from hepinf.stats.priors import Poisson
from hepinf.stats.priors import TruncatedNormal
from hepinf.stats.priors import Uniform
from hepinf.stats.whitening import Whitening
from hepinf.stats.toys import fraction_covered
from hepinf.stats.toys import effective_bins
from hepinf.stats.toys import median_band
from hepinf.stats.toys import pull_summary
from hepinf.summaries.losses import InfernoLoss
from hepinf.summaries.fisher import sigma_mu
from hepinf.summaries.losses import tangent_response
from hepinf.summaries.fisher import expected_uncertainty
from hepinf.summaries.histogram import GRADIENTS
from hepinf.summaries.histogram import bin_counts
from hepinf.summaries.histogram import histogram
from hepinf.summaries.histogram import softmax_bins
from hepinf.train.config import TrainConfig
from hepinf.train.loop import train
from hepinf.train.networks import MLP
from hepinf.unbinned.likelihood import UnbinnedLikelihood
from hepinf.unbinned.mixture import Mixture
from hepinf.unbinned.parametric import ParametricDensity1D
from hepinf.unbinned.parametric import SHAPES
from hepinf.unbinned.scan import scan
from hepinf.workspaces.schema import example_workspace
# isort: on

FILE = "numbers.json"
DATA = os.environ.get("HEPINF_DATA")
FILES = {path.stem: path for path in sorted(Path(DATA, "workspaces").glob("*.json"))} if DATA else {}
WITH_STRENGTH = ("atlas_sabine", "atlas_ttz_3l", "ttbar_ljets_inclusive_pruned")  # the others are backgrounds alone

Groups = dict[str, Callable[[], Numbers]]

# How near is the same, (relative, absolute). Nothing here is statistical: the seeds are fixed.
# float64 keeps 16 digits; sums of 1e3 terms in another order, of either sign, and derivatives of them keep 9.
EXACT = (1e-9, 1e-10)
# A fit ends where log L may still rise by 1e-8: up to sqrt(2e-8) standard deviations from the maximum, on two paths.
# Lengths are frozen in units of the standard deviation; log L itself is flat there, and 1e-7 of it is ample.
FIT = (0.0, 2 * math.sqrt(2e-8))
HEIGHT = (1e-12, 1e-7)
# A limit solves an equation between two such heights, a standard deviation of a toy sample is a sum of such lengths.
LIMIT = (1e-5, 1e-6)
# float32 keeps 7 digits, of which ten layers take one and a half: 5e-6 between two sets of processor instructions.
SINGLE = (3e-5, 3e-5)
# 24 trajectories multiply rounding errors of 1e-15 by far less than 1e9; more of them, or longer ones, might not.
CHAIN = (1e-6, 1e-6)
# A short training in float32 multiplies them by more, but not by thousands.
TRAINED = (1e-4, 1e-4)


def tolerance(group: str, key: str) -> tuple[float, float]:
    """Relative and absolute, by what a number is."""
    kind = group.split()[0]
    if kind in ("fit", "toys"):
        return EXACT if "counts" in key or "expected" in key else HEIGHT if "log L" in key else FIT
    if kind == "summaries":  # the last bit of torch's float32 random numbers, of events and weights, is the processor's
        return SINGLE if "loss" in key or "gradient" in key else EXACT
    kinds = {"limit": LIMIT, "scan": LIMIT, "correction": LIMIT, "hmc": CHAIN, "trained": TRAINED}
    kinds |= {"flow": SINGLE, "flows": SINGLE, "heads": SINGLE}
    return kinds.get(kind, EXACT)


def values(x: torch.Tensor) -> float | list[float]:
    """The number, or all numbers of a tensor in their order."""
    return x.detach().double().reshape(-1).tolist() if x.dim() else float(x.detach())


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# --- binned likelihoods ---


def counting_model() -> BinnedModel:
    """The counting experiment of the README."""
    signal, background = torch.tensor([2.0, 6.0, 12.0]), torch.tensor([120.0, 60.0, 20.0])
    scale = Variation(down=0.97 * background, up=1.03 * background, step=1.0)
    return BinnedModel(
        [Process("signal", signal, norm="mu"), Process("background", background, variations={"scale": scale})],
        [Parameter("mu", 1.0), Parameter("scale", 0.0, constraint=Normal(0.0, 1.0))],
    )


@functools.cache
def workspace(stem: str) -> BinnedModel:
    """A published file, or the small one of the package."""
    return BinnedModel.from_workspace(FILES[stem] if stem else example_workspace())


def displaced(model: BinnedModel) -> torch.Tensor:
    """A point of no meaning near the nominal one, another direction for each parameter, inside the bounds."""
    wave = torch.sin(1.0 + torch.arange(len(model.parameters), dtype=torch.float64))
    width = 0.1 * model.nominal.abs().clamp_min(1.0)
    _, sd = model.constraint_measurements(model.auxdata)
    width[model.constrained] = 0.5 * sd
    return (model.nominal + width * wave).clamp(*model.bounds.T)


def likelihood(stem: str = "") -> Numbers:
    model = workspace(stem)
    found: Numbers = {"parameters": len(model.parameters), "bins": model.yields.bins}
    for name, point in (("nominal", model.nominal), ("displaced", displaced(model))):
        value, gradient = model.derivatives(point, model.observed, order=1)
        counts, auxiliary = model.deviance(point, model.observed)
        found |= {
            f"{name}: log L": values(model.log_prob(point, model.observed)),
            f"{name}: log L beside its gradient": values(value),
            f"{name}: length of the gradient": values(gradient.norm()),
            f"{name}: expected counts": values(model.expected(point).sum()),
            f"{name}: deviance": values(counts + auxiliary.sum(-1)),
        }
    curvature = model.derivatives(displaced(model), model.observed)[2]
    return found | {"displaced: length of the Hessian": values(curvature.norm())}


def fit(stem: str = "") -> Numbers:
    model = workspace(stem)
    best = maximise(model)
    assert best.converged
    pulls = best.pulls[model.constrained]
    found: Numbers = {"log L": values(best.log_prob), "length of the pulls": values(pulls.norm())}
    if model.poi is None:
        return found
    sigma = best.error[best.index(model.poi)]
    ends = interval(model, model.poi, fit=best)
    assert bool(torch.isfinite(ends.low) & torch.isfinite(ends.high))
    found |= {"strength / sigma": values(best[model.poi] / sigma), "log sigma": values(sigma.log())}
    return found | {f"{side} end / sigma": values(getattr(ends, side) / sigma) for side in ("low", "high")}


def limit(stem: str = "") -> Numbers:
    found = upper_limit(workspace(stem))
    assert found.found.all()
    return {"observed": values(found.observed), "expected": values(found.expected)}


def more_of_the_example() -> Numbers:
    """What else a fit gives, of the small workspace."""
    model = workspace("")
    tested, signal = hypotest(model, torch.tensor([0.5, 1.0, 2.0]).double()), discovery(model)
    moved, quality = impacts(model), goodness_of_fit(model)
    return {
        "CLs": values(tested.cls),
        "CLs expected": values(tested.cls_expected),
        "q": values(tested.q),
        "significance": values(signal.significance),
        "significance expected": values(signal.significance_expected),
        "impacts up": values(moved.up),
        "impacts down": values(moved.down),
        "pulls": values(moved.pulls),
        "chi2": values(quality.chi2),
        "p": values(quality.p),
        "limit by 50 toys": values(upper_limit(model, toys=50, seed=1).observed),
    }


def toys() -> Numbers:
    model = counting_model()
    counts, auxiliary = model.sample(model.nominal.repeat(100, 1), seed=0)
    fits = maximise(model.at(counts, auxiliary))
    assert fits.ok
    return {
        "expected uncertainty": float(expected_uncertainty(model, "mu")),
        "counts of the first three": values(counts[:3]),
        "auxiliary counts of the first three": values(auxiliary[:3]),
        "mean of mu": values(fits["mu"].mean()),
        "spread of mu": values(fits["mu"].std()),
        "mean log L": values(fits.log_prob.mean()),
        "mean of the scale": values(fits["scale"].mean()),
    }


def first_draws() -> Numbers:
    """After that chains go their own ways: rounding errors grow from trajectory to trajectory."""
    model = workspace("")
    posterior = model.at().starting_at(maximise(model).theta)
    drawn = hmc(posterior, draws=4, warmup=20, chains=2, seed=1)
    return {
        "draws": values(drawn.theta),
        "log density": values(drawn.log_prob),
        "mean": values(drawn.theta.mean((0, 1))),
        "step": drawn.step,
        "evaluations": drawn.evaluations,
    }


# --- priors, responses, histograms ---

PRIORS = {
    "Normal": Normal(1.0, 0.3),
    "Gamma": Gamma(1.25, 4.0),
    "LogNormal": LogNormal(1.0, 0.27),
    "Bounded flat": Uniform(0.0, 3.0),
    "Bounded normal": TruncatedNormal(0.0, 3.0, 1.0, 0.8),
}


def priors() -> Numbers:
    x = torch.linspace(0.1, 2.9, 8, dtype=torch.float64)
    constraints = {"Poisson": Poisson(25.0), "Poisson observed": Poisson(25.0, 31.0)}
    found: Numbers = {f"{name}: log density": values(p.log_prob(x)) for name, p in (PRIORS | constraints).items()}
    found["Normal: information"] = PRIORS["Normal"].information
    whitening = Whitening(list(PRIORS.values()))
    z = torch.linspace(-4.0, 4.0, 9, dtype=torch.float64)[:, None].expand(-1, len(PRIORS))
    for name, points, slopes in zip(PRIORS, *(part.T for part in whitening(z))):
        found |= {f"{name}: from z": values(points), f"{name}: slope": values(slopes)}
    return found | {"z of parameters": values(whitening.inverse(x[:, None].expand(-1, len(PRIORS))))}


def interpolation() -> Numbers:
    alpha = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)
    down, nominal, up = torch.tensor([[9.0, 21.0], [10.0, 20.0], [12.0, 19.5]], dtype=torch.float64)
    low, high = torch.tensor([0.9, 1.15], dtype=torch.float64)
    found: Numbers = {"rate polynomial": values(rate_polynomial(low, high))}
    for code in SHAPE_CODES:
        frozen = {"quadratic_taylor": "taylor"}.get(code, code)
        found[f"{frozen}: shapes"] = values(interpolate_shape(alpha[:, None], down, nominal, up, code))
        found |= {f"{frozen}: bend, derivative {n}": values(even_part(alpha, code, n)) for n in range(3)}
    return found | {f"{code}: rates": values(interpolate_rate(alpha, low, high, code)) for code in RATE_CODES}


def histograms() -> Numbers:
    x, edges = 0.5 + 0.3 * normal(200), torch.linspace(0, 1, 6, dtype=torch.float64)
    weights = 1 + 0.1 * normal(200, 2, seed=2)
    pull = torch.arange(10, dtype=torch.float64).reshape(2, 5)
    found: Numbers = {}
    for kind in GRADIENTS:
        for outside in ("drop", "keep"):
            point = x.clone().requires_grad_()
            counts = histogram(point, edges, weights, kind, outside=outside)
            (slope,) = torch.autograd.grad((counts * pull).sum(), point)
            found |= {f"{kind}, {outside}: counts": values(counts), f"{kind}, {outside}: slopes": values(slope[:20])}
    outputs = normal(200, 4, seed=3)
    found["softmax"] = values(softmax_bins(outputs, 0.3).sum(0))
    return found | {"hard": values(bin_counts(outputs.argmax(-1), 4, weights))}


def summaries() -> Numbers:
    """INFERNO's benchmarks: exact rows of the table, and the loss of a network that is not trained."""
    events = {"signal": sample_signal(500, generator(1)).double(), "background": sample_background(500, generator(2))}
    events["background"] = events["background"].double()
    templates, exact = classifier_templates(200), unbinned_information(40)
    found: Numbers = {}
    for k, benchmark in enumerate(BENCHMARKS):
        best, _ = best_bins(benchmark, 30)
        network = MLP((3, 30, 10), seed=3).double()
        response = tangent_response(lambda x, b=benchmark: shift_tangents(x, b.shapes)) if benchmark.shapes else None
        loss = InfernoLoss(
            50.0, 1000.0, benchmark.prior, background_floats="b" in benchmark.floating, response=response
        )
        value = loss(network, events, 0.0)
        slopes = torch.autograd.grad(value, list(network.parameters())[:-1])
        found |= {
            f"benchmark {k}: classifier": float(templates.sigma(benchmark)),
            f"benchmark {k}: unbinned": benchmark.sigma(exact),
            f"benchmark {k}: best ten bins": float(best["s"]),
            f"benchmark {k}: bound": best.bound,
            f"benchmark {k}: loss": values(value),
            f"benchmark {k}: length of its gradient": values(sum(slope.square().sum() for slope in slopes).sqrt()),
        }
    signals, background = 5 + normal(2, 6).abs(), 50 + normal(6, seed=2).abs()
    return found | {"sigma of two strengths": values(sigma_mu(signals, background, normal(3, 6, seed=3)))}


# --- events ---

BUMP = torch.tensor([300.0, 15.0, 100.0], dtype=torch.float64)  # M_pole, Gamma, tau


def bump(yields: dict[str, float] | None) -> UnbinnedLikelihood:
    mixture = Mixture({"signal": BreitWigner(), "background": Exponential()}, yields)
    return mixture.at(pseudo_data(BUMP, generator(5), signal=200, background=2000))


def unbinned() -> Numbers:
    found: Numbers = {}
    for name, yields in (("fitted", None), ("fixed", {"signal": 200.0, "background": 2000.0})):
        events = bump(yields)
        found[f"{name}: sum of the events"] = values(events.x.sum())
        for at, point in (("truth", BUMP), ("away", torch.tensor([310.0, 20.0, 90.0], dtype=torch.float64))):
            value, slope = events.value_and_gradient(point)
            found |= {f"{name}, {at}: log L": values(value), f"{name}, {at}: gradient": values(slope)}
            found[f"{name}, {at}: yields"] = list(events.yields(point).values())
            found[f"{name}, {at}: their spreads"] = list(events.yield_errors(point).values())
    return found


def scanned() -> Numbers:
    """Its climb stops where log L may rise by 1e-4 of its tolerance: as a limit, no more than five digits."""
    found = scan(bump(None), start=BUMP)
    assert found.ok
    shift = (found.theta - BUMP) / found.error
    return {"log L": found.log_prob, "log sigma": values(found.error.log()), "shift / sigma": values(shift)}


def pairs_of_vh() -> Numbers:
    found: Numbers = {}
    for mc in ("gamma", "poisson"):
        pairs: Joint = vh_joint(mc)
        z, counts = pairs.sample(3, generator(7))
        value, gradient = pairs.value_and_gradient(0.9 * z, counts)
        step, _ = pairs.newton_step(0.9 * z, counts)
        found |= {
            f"{mc}: z": values(z[:, :5]),
            f"{mc}: counts": values(counts.sum(1)),
            f"{mc}: counts of the first bins": values(counts[:, :5]),
            f"{mc}: parameters": values(pairs.parameters(z).sum(0)),
            f"{mc}: log density": values(pairs.log_prob(0.9 * z, counts)),
            f"{mc}: log density beside its gradient": values(value),
            f"{mc}: gradient": values(gradient[0]),
            f"{mc}: length of the gradients": values(gradient.norm(dim=1)),
            f"{mc}: length of the Newton steps": values(step.norm(dim=1)),
        }
    counts, nu, v = (torch.tensor(x, dtype=torch.float64) for x in ([3.0, 7.0, 0.0], [4.0, 6.5, 0.1], [0.5, 0.0, 0.2]))
    return found | {"negative binomial": values(negative_binomial(counts, nu, v))}


def corrected() -> Numbers:
    """The posterior of the small workspace, from draws of the prior."""
    pairs, z = Joint(workspace(""), {"mu": Gamma(1.25, 1.0)}), normal(400, 1, seed=8)
    log_q = -0.5 * z.square().sum(1) - 0.5 * math.log(2 * math.pi)
    found = correct(pairs, workspace("").observed, z, log_q, seed=1)
    mean, sd = found.moments()
    return {
        "mean and width": values(torch.cat([mean, sd])),
        "quantiles": values(found.quantiles().T),
        "effective sample size": [found.ess.value, found.ess.error],
        "log evidence": [found.log_evidence.value, found.log_evidence.error],
    }


def problems() -> Numbers:
    """The densities that the papers' notebooks start from."""
    found: Numbers = {}
    for name, toy in (("binary", BINARY), ("multiclass", MULTICLASS)):
        sigmas = blobs_limit(toy, 60)
        found |= {f"{name}: sigma": values(sigmas.total), f"{name}: statistical": values(sigmas.statistical)}
    toy = ToyLikelihood()
    value, gradient = toy.value_and_gradient(0.3 * normal(3, 95, seed=9).abs())
    found |= {"LHC toy: log density": values(value), "LHC toy: lengths of the gradients": values(gradient.norm(dim=1))}
    for name, density in (("electroweak", ew_like()), ("flavour", flavor_like())):
        theta = density.sample(4, generator(10))
        found |= {
            f"{name}: first dimensions": values(theta[:, :5]),
            f"{name}: log density": values(density.log_prob(theta)),
        }
    return found


# --- flows ---

LOWER = [-math.inf, -math.inf, -math.inf, -math.inf, 0.0]  # the last of five dimensions has a hard end
FAMILIES: dict[str, tuple[Callable[..., Flow], dict[str, Any]]] = {
    "maf": (maf, {"hidden": (16, 16)}),
    "arqs": (arqs, {"hidden": (16, 16), "bins": 5}),
    "glow": (coupling_flow, {"hidden": (16, 16), "blocks": 3}),
}


def points() -> torch.Tensor:
    x = normal(64, 5, seed=11) @ (torch.eye(5) + 0.3 * torch.ones(5, 5)).double()
    return torch.cat([x[:, :4], x[:, 4:].abs()], 1)


def new_flow(family: str) -> Flow:
    """A flow as it begins, but that no weight is zero: some layers begin as the identity, which would hide the rest."""
    make, options = FAMILIES[family]
    flow = make(5, 3, lower=LOWER, seed=4, **options)
    flow.standardise(points(), normal(64, 3, seed=12))
    noise = generator(13)
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=noise))
    return flow


def numbers_of(flow: Flow) -> Numbers:
    x, context = points()[:6], normal(6, 3, seed=14)
    z, log_det = flow.to_latent(x, context)
    back, log_det_back = flow.from_latent(0.7 * normal(6, 5, seed=15), context)
    return {
        "log density": values(flow.log_prob(x, context)),
        "latent points": values(z),
        "log-determinants": values(log_det),
        "points of latent ones": values(back),
        "log-determinants back": values(log_det_back),
        "sample": values(flow.sample(4, context[:1], seed=16)),
    }


def stored_flow(family: str) -> Numbers:
    """Weights from a file: what a seed makes of a network may change, what these weights mean may not."""
    return numbers_of(Flow.load(FOLDER / f"flow_{family}"))


def seeded_flows() -> Numbers:
    """What a seed makes of a network: stored results can be had again only as long as this stays."""
    return {f"{family}: {key}": x for family in FAMILIES for key, x in numbers_of(new_flow(family)).items()}


def splines() -> Numbers:
    x, numbers = 3.0 * normal(20, 2, seed=17), normal(20, 3 * 5 - 1, 2, seed=18)
    y, log_slope = rational_quadratic(x, numbers, 4.0)
    return {
        "spline": values(y),
        "log slope": values(log_slope),
        "inverse": values(rational_quadratic_inverse(x, numbers, 4.0)),
    }


def heads() -> Numbers:
    """Densities of one feature, as they begin: about as wide as the window of this one."""
    x, theta = torch.linspace(-2.5, 2.5, 9, dtype=torch.float64)[:, None], torch.tensor([200.0, 10.0]).double()
    box = {"M": (100.0, 400.0), "G": (5.0, 30.0)}
    densities = {shape: ParametricDensity1D("x", (-3.0, 3.0), box, shape=shape, seed=2) for shape in SHAPES}
    return {shape: values(density.log_prob(x, theta)) for shape, density in densities.items()}


# --- how good is it? ---


def two_samples() -> tuple[torch.Tensor, torch.Tensor]:
    return normal(600, 3, seed=21), 0.1 + 1.1 * normal(600, 3, seed=22)


def distances() -> Numbers:
    x, y = two_samples()
    found = {
        "Kolmogorov-Smirnov": ks(x, y, batches=10),
        "Wasserstein": wasserstein(x, y),
        "Frobenius": correlation_distance(x, y),
        "sliced Wasserstein": sliced_wasserstein(x, y, projections=20),
    }
    for kind, multimodal in (("shortest", False), ("pieces", True)):
        intervals = hpdi_error(1 + x, 1 + y, multimodal=multimodal)
        found |= {f"{kind} interval, {level}": d for level, d in intervals.items()}
    return {name: [d.value, d.error, *d.each.tolist()] for name, d in found.items()}


def classifier() -> Numbers:
    found = c2st(*two_samples(), epochs=3, hidden=(16,), seed=1)
    return {"area": found.auc.value, "accuracy": found.accuracy.value, "log ratio": found.log_ratio.value}


def trained_summary() -> Numbers:
    """INFERNO's loss of its second benchmark along a short training."""
    events = {"signal": sample_signal(500, generator(1)), "background": sample_background(500, generator(2))}
    response = tangent_response(lambda x: shift_tangents(x, BENCHMARKS[1].shapes))
    loss = InfernoLoss(50.0, 1000.0, BENCHMARKS[1].prior, background_floats=False, response=response)
    config = TrainConfig(batch_size=250, epochs=5, lr=1e-3, progress=False)
    history = train(loss, [MLP((3, 20, 10), seed=3)], events, config, seeds=[1])
    return {"losses": [epoch[0] for epoch in history.loss]}


def importance() -> Numbers:
    x, (log_w, log_ratio) = normal(500, 2, seed=23), (0.7 * normal(2, 500, seed=24)).unbind()
    mean, covariance = weighted_moments(x, log_w)
    test = latent_normality(x)
    estimates = {
        "effective sample size": importance_ess(log_w),
        "evidence": log_evidence(log_w),
        "evidence, bootstrap": log_evidence(log_w, resamples=20),
        "KL of true events": kl_forward(log_ratio, log_evidence(log_w)),
        "KL of weighted events": kl_forward_weighted(log_w),
        "reverse KL": kl_reverse(log_w),
    }
    return {
        **{name: [e.value, e.error] for name, e in estimates.items()},
        "k": pareto_k(log_w),
        "first events drawn": values(resample(log_w, 20)),
        "mean": values(mean),
        "covariance": values(covariance),
        "quantiles": values(weighted_quantiles(x, log_w, [0.16, 0.5, 0.84]).T),
        "latent test": [test.radius, test.radius_p, test.bonferroni_p, test.fisher_p, test.correlation_p, test.p],
    }


def calibrated() -> Numbers:
    truth, drawn = normal(60, 3, seed=25), 1.1 * normal(60, 50, 3, seed=26)
    r = sbc_ranks(truth, drawn, seed=27)
    found = calibration_curve(r, repeats=20, seed=1)
    uniform = sbc_test(r)
    shrink, z = contraction(2 * truth, drawn)
    return {
        "ranks": values(r[:5]),
        "errors": [
            *(found.max_median, found.max_max),
            *(found.perfect_median, found.median_limit),
            *(found.perfect_max, found.max_limit),
        ],
        "curve": values(found.error[49]),
        "band": values(found.band[49]),
        "uniform": [*uniform.each.tolist(), uniform.p],
        "ranks of distances": values(tarp_ranks(truth, drawn, seed=28)[:5]),
        "contraction": values(shrink),
        "z-scores": values(z[0]),
    }


def metrics() -> Numbers:
    x = normal(40, seed=29)
    pulls = pull_summary(x)
    return {
        "median": list(median_band(x)),
        "coverage": list(fraction_covered(x.abs() < 1)),
        "pulls": [pulls.mean.value, pulls.mean.error, pulls.sd.value, pulls.sd.error],
        "effective bins": values(effective_bins(x.abs().reshape(4, 10))),
    }


# --- the comparison ---


def per_file(stem: str) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """What is frozen of a published workspace."""
    yield f"likelihood {stem}", lambda: likelihood(stem)
    yield f"fit {stem}", lambda: fit(stem)
    if stem in WITH_STRENGTH:
        yield f"limit {stem}", lambda: limit(stem)


GROUPS: Groups = {
    "likelihood example": likelihood,
    "fit example": fit,
    "limit example": limit,
    "limit example, tests": more_of_the_example,
    "toys": toys,
    "hmc": first_draws,
    "priors": priors,
    "interpolation": interpolation,
    "histograms": histograms,
    "summaries": summaries,
    "unbinned": unbinned,
    "scan": scanned,
    "joint": pairs_of_vh,
    **{f"flow {family}": functools.partial(stored_flow, family) for family in FAMILIES},
    "flows of seeds": seeded_flows,
    "distances": distances,
    "trained classifier": classifier,
    "trained summary": trained_summary,
    "correction": corrected,
    "heads": heads,
    "splines": splines,
    "problems": problems,
    "importance": importance,
    "calibration": calibrated,
    "metrics": metrics,
}
for _stem in FILES:
    GROUPS |= dict(per_file(_stem))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("group", GROUPS)
def test_numbers_are_the_frozen_ones(group):
    frozen = read(FILE)
    assert group in frozen, "not frozen: python tests/test_golden.py --write"
    lines = differences(GROUPS[group](), frozen[group], functools.partial(tolerance, group))
    assert not lines, "\n".join([f"{group}:", *lines])


def test_everything_frozen_is_compared():
    """Except for the published files where they are not at hand."""
    files = ("likelihood ", "fit ", "limit ")
    absent = read(FILE).keys() - GROUPS.keys()
    assert all(name.startswith(files) for name in absent) and not (DATA and absent)


def freeze() -> None:
    """Freeze what is computed now; groups of files that are not at hand stay as they are."""
    for family in FAMILIES:
        if not (FOLDER / f"flow_{family}").exists():  # an input, which outlives the numbers
            new_flow(family).save(FOLDER / f"flow_{family}")
    frozen = read(FILE) if (FOLDER / FILE).exists() and not DATA else {}
    for group, compute in GROUPS.items():
        begin = time.perf_counter()
        frozen[group] = compute()
        print(f"{time.perf_counter() - begin:6.2f} s  {group}")
    write(FILE, frozen)


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in the tests
    match sys.argv[1:]:
        case ["--write"]:
            freeze()
        case ["--sweep", folder]:
            write("sweep_smoke.json", sweep_numbers(Path(folder)))
        case _:
            sys.exit(__doc__)
