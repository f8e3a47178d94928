"""Flows and learnt likelihoods by their public interface: other sizes, seeds and mistakes than in the notebooks."""

import math

import pytest
import torch

from hepinf.flows.flow import Flow, arqs, coupling_flow, maf
from hepinf.flows.sparse import dependence_order
from hepinf.problems import standin
from hepinf.problems.lhc_toy import ToyLikelihood
from hepinf.problems.lhc_toy_evidence import toy_log_evidence
from hepinf.problems.lhc_toy_samples import toy_samples
from hepinf.stats.priors import Normal
from hepinf.surrogates.certificate import CertificateConfig, certify_density
from hepinf.surrogates.nflikelihood import NFLikelihood
from hepinf.surrogates.training import NFLikelihoodConfig
from hepinf.train.config import TrainConfig

FAMILIES = {
    "maf": lambda dim, context, **o: maf(dim, context, hidden=(16, 16), permutation="random", **o),
    "arqs": lambda dim, context, **o: arqs(dim, context, hidden=(16,), bins=3, residual=False, **o),
    "glow": lambda dim, context, **o: coupling_flow(dim, context, hidden=(16,), blocks=3, **o),
    "hubs": lambda dim, context, **o: arqs(dim, context, hidden=(16,), bins=3, transforms=1, leading=dim // 2, **o),
}


def perturbed(family, dim, context, seed, **options):
    generator = torch.Generator().manual_seed(seed)
    flow = FAMILIES[family](dim, context, **options)
    with torch.no_grad():
        for weight in flow.transform.parameters():
            weight += 0.03 * torch.randn(weight.shape, generator=generator)
    c = torch.randn(400, context, generator=generator, dtype=torch.float64) if context else None
    return flow, torch.rand(400, dim, generator=generator, dtype=torch.float64), c


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dim", "context"), [(2, 0), (3, 1), (8, 5)])
def test_contract(family, dim, context, tmp_path):
    lower = [0.0 if k % 2 else -math.inf for k in range(dim)]
    upper = [1.0 if k % 3 else math.inf for k in range(dim)]
    flow, x, c = perturbed(family, dim, context, seed=dim, lower=lower, upper=upper)
    flow.standardise(x, c)
    for precision, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        flow.transform.to(precision)
        z, log_det = flow.to_latent(x, c)
        back, log_det_back = flow.from_latent(z, c)
        assert (back - x).abs().max() < tolerance
        assert (log_det + log_det_back).abs().max() < 1e3 * tolerance
        one = None if c is None else c[:1]
        drawn = flow.sample(5000, one, seed=1)
        assert bool(((drawn > flow.support.lower) & (drawn < flow.support.upper)).all())
        assert torch.isfinite(flow(drawn, one)).all()
        again = Flow.load(flow.save(tmp_path / family))
        assert torch.equal(again(x, c), flow(x, c))
    assert flow(x[:0], None if c is None else c[:0]).shape == (0,)


@pytest.mark.parametrize("family", ["maf", "arqs"])
def test_no_dependency_is_lost_in_narrow_networks(family):
    flow = {"maf": maf, "arqs": arqs}[family](30, hidden=(4,), transforms=1, activation="tanh").double()
    with torch.no_grad():
        for n, weight in enumerate(flow.transform.parameters()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(n)) * 0.3)
    x = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.to_latent(v)[0], x)
    assert bool((jacobian.tril() != 0)[torch.ones(30, 30).tril().bool()].all())
    assert bool((jacobian.triu(1) == 0).all())


def test_bounds_given_as_python_floats_keep_their_digits():
    flow = maf(1, lower=[0.1], upper=[0.3])
    assert float(flow.support.lower) == 0.1 and float(flow.support.upper) == 0.3
    assert bool(torch.isfinite(flow(torch.tensor([[0.1], [0.3]], dtype=torch.float64))).all())
    assert flow(torch.tensor([0.3000001], dtype=torch.float64)) == -math.inf


@pytest.fixture(scope="module")
def learnt():
    "A correlated pair with an edge, of which the exact density is known."
    generator = torch.Generator().manual_seed(11)
    first = torch.randn(60_000, generator=generator, dtype=torch.float64)
    first = first[first > -0.5][:24_000]
    second = 0.9 * first + 0.3 * torch.randn(24_000, generator=generator, dtype=torch.float64)
    x = torch.stack([first, 100 + second], 1)
    training = TrainConfig(schedule="cosine", epochs=30, lr=3e-3, batch_size=256, ema=0.99, progress=False)
    density = NFLikelihood.train(
        x[:16_000],
        ["mu", "mass"],
        {"mu": (-0.5, math.inf)},
        prior={"mass": Normal(100.0, 5.0)},
        config=NFLikelihoodConfig(options={"hidden": (16, 16)}),
        training=training,
    )
    return density, x[16_000:]


def exact(x):
    inside = -0.5 * x[..., 0] ** 2 - 0.5 * ((x[..., 1] - 100 - 0.9 * x[..., 0]) / 0.3) ** 2
    normalisation = math.log(2 * math.pi * 0.3) + math.log(0.6914624612740131)
    return torch.where(x[..., 0] < -0.5, -math.inf, inside - normalisation)


def test_learnt_density_is_certified(learnt):
    density, test = learnt
    certificate = density.certify(test, exact=exact, log_z=0.0, config=CertificateConfig(batches=20))
    row = certificate.numbers["learnt"]
    assert row["ess"].value > 0.97 and abs(row["log_z"].value) < 4 * row["log_z"].error + 2e-3
    assert row["kl"].value < 0.01 and row["outside"].value == 0 < certificate.numbers["gaussian"]["outside"].value
    assert str(density.certificate) == str(certificate)


def test_profile_prior_and_publication(learnt, tmp_path):
    density, test = learnt
    values = [-0.2, 0.5, 1.0, 1.5]
    scan = density.profile("mu", values)
    # the profile of the exact density over the mass is the density of mu itself
    assert (scan.scan - torch.tensor([v * v for v in values])).abs().max() < 0.3
    narrow = density.with_prior({"mass": Normal(100.0, 1.0)})
    weights = (-0.5 * (test[:, 1] - 100) ** 2 + 0.02 * (test[:, 1] - 100) ** 2).exp()
    expected = float((weights * test[:, 0]).sum() / weights.sum())
    assert abs(float(narrow.sample(20_000, seed=2)[:, 0].mean()) - expected) < 0.05
    folder = density.save(tmp_path / "pair", title="a pair")
    assert torch.equal(NFLikelihood.load(folder).log_prob(test), density.log_prob(test))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4] + b"abcd")
    with pytest.raises(ValueError, match="checksum"):
        NFLikelihood.load(folder)


def test_mistakes_are_named(learnt):
    _, test = learnt
    with pytest.raises(ValueError, match="event 0 has mu"):
        NFLikelihood.train(test - 10, ["mu", "mass"], {"mu": (-0.5, math.inf)})
    broken = test.clone()
    broken[7, 1] = math.nan
    with pytest.raises(ValueError, match="event 7"):
        NFLikelihood.train(broken, ["mu", "mass"])
    with pytest.raises(ValueError, match="did you mean 'mass'"):
        NFLikelihood.train(test, ["mu", "mass"], prior={"mas": Normal(0.0, 1.0)})
    with pytest.raises(ValueError, match="at least"):
        certify_density(maf(2), test[:100])


def test_training_goes_on_after_a_stop(tmp_path):
    x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    training = TrainConfig(epochs=3, batch_size=200, progress=False, schedule="cosine")
    config = NFLikelihoodConfig(options={"hidden": (8,)})
    whole = NFLikelihood.train(x, "abc", config=config, training=training)
    training = training.replace(checkpoint=tmp_path / "flow.ckpt")
    stored = NFLikelihood.train(x, "abc", config=config, training=training)
    again = NFLikelihood.train(x, "abc", config=config, training=training)  # finished: returned at once
    for other in (stored, again):
        assert torch.equal(whole.log_prob(x), other.log_prob(x))


def test_dependence_order_puts_hubs_first():
    hub = torch.randn(5000, 1, generator=torch.Generator().manual_seed(1))
    x = torch.randn(5000, 6, generator=torch.Generator().manual_seed(2)) + hub
    assert dependence_order(torch.cat([x[:, :4], hub, x[:, 4:]], 1))[0] == 4


def curved(theta):
    "Log density in five dimensions: two steer the others, in location and in scale."
    steer, rest = theta[:, :2], theta[:, 2:]
    scale = 0.2 * torch.tanh(steer[:, :1])
    residual = (rest - 0.6 * steer.sum(1, keepdim=True)) * torch.exp(-scale)
    return -0.5 * (steer.square().sum(1) + residual.square().sum(1)) - 3 * scale[:, 0] - 2.5 * math.log(2 * math.pi)


def drawn(n, seed):
    noise = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rest = 0.6 * noise[:, :2].sum(1, keepdim=True) + noise[:, 2:] * torch.exp(0.2 * torch.tanh(noise[:, :1]))
    return torch.cat([noise[:, :2], rest], 1)


@pytest.mark.parametrize("family", ["maf", "arqs"])
def test_sparse_training_with_the_exact_density(family, tmp_path):
    config = NFLikelihoodConfig(family=family, options={"hidden": (16,)}, sparsity=1.0, profiled=["a"])
    training = TrainConfig(schedule="cosine", epochs=15, batch_size=128, lr=3e-3, ema=0.99, progress=False)
    x, test = drawn(5000, 1), drawn(20_000, 2)
    options = {"config": config, "training": training}
    plain = NFLikelihood.train(x, "abcde", **options)
    taught = NFLikelihood.train(x, "abcde", log_density=lambda t: curved(t) + 3.0, **options)
    with torch.no_grad():
        plain_kl, kl = (float((curved(test) - density.log_prob(test)).mean()) for density in (plain, taught))
    assert 0 < kl < 0.02 and kl < 0.8 * plain_kl, (kl, plain_kl)
    at = torch.linspace(-2.0, 2.0, 5, dtype=torch.float64)
    ridge = lambda a: -0.5 * a**2 - 0.6 * torch.tanh(a)  # noqa: E731  (the second steering one at 0, no residuals)
    exact = 2 * (ridge(torch.linspace(-3, 3, 60_001, dtype=torch.float64)).max() - ridge(at))
    assert (taught.profile("a", at).scan - exact).abs().max() < 0.5
    saved = taught.save(tmp_path / "taught")
    assert torch.equal(NFLikelihood.load(saved).log_prob(test), taught.log_prob(test))


def test_sparse_training_takes_a_context_and_a_checkpoint(tmp_path):
    c = torch.rand(3000, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = drawn(3000, 4) + c
    training = TrainConfig(schedule="cosine", epochs=6, batch_size=128, lr=3e-3, progress=False)
    stored = training.replace(checkpoint=tmp_path / "stored")
    options = {"context": {"c": c[:, 0]}, "config": NFLikelihoodConfig(options={"hidden": (16,)}, sparsity=2.0)}
    one = NFLikelihood.train(x, "abcde", training=training, **options)
    two = NFLikelihood.train(x, "abcde", training=stored, **options)
    again = NFLikelihood.train(x, "abcde", training=stored, **options)  # both parts finished before
    assert torch.equal(one.log_prob(x, c), two.log_prob(x, c)) and torch.equal(again.log_prob(x, c), two.log_prob(x, c))
    low, high = (one.log_prob(drawn(2000, 5) + shift, torch.tensor([0.1])).mean() for shift in (0.1, 0.9))
    assert low - high > 0.3
    with pytest.raises(ValueError, match="log_density"):
        NFLikelihood.train(x, "abcde", log_density=curved, training=training, **options)


def test_toy_evidence_by_two_proposals():
    toy = ToyLikelihood()
    one, two = toy_log_evidence(toy, "globals", n=4096, seed=3), toy_log_evidence(toy, "full", n=20_000, seed=4)
    assert abs(one.value - two.value) < 4 * math.hypot(one.error, two.error)
    theta = toy_samples(1000, seed=33, cache=None)
    assert bool(torch.isfinite(toy.log_prob(theta)).all()) and theta[:, 0].min() > -1


@pytest.mark.parametrize("make", [standin.ew_like, standin.flavor_like])
def test_standins_are_exact(make):
    truth = make()
    theta = truth.sample(4000, seed=8)
    lower, upper = truth.support
    assert bool(((theta >= lower) & (theta <= upper)).all()) and bool(torch.isfinite(truth.log_prob(theta)).all())
    masses = torch.tensor([mode.mass for mode in truth.modes], dtype=torch.float64)
    assert ((truth.fraction(theta) - masses).abs() < 5 * (masses * (1 - masses) / 4000).sqrt()).all()
