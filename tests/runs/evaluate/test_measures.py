"""Measures of an exact network, against closed forms."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import DECAY, EXACT_SDES, MEAN, STD, column, finished, metrics
from experiments import loaded
from flax import linen as nn
from PIL import Image
from run_files import quiet

from score_sde_jax import keys as prng
from score_sde_jax import settings
from score_sde_jax.data import all_images
from score_sde_jax.diffusion.losses import normalized_log_nsr
from score_sde_jax.diffusion.sdes import SDES, VP
from score_sde_jax.errors import UserError
from score_sde_jax.networks import MODELS
from score_sde_jax.runs import build, evaluate
from score_sde_jax.runs.train import train
from score_sde_jax.tasks.loss import times_of_levels


def parts(sde):
    """alpha and standard deviation of a pixel at both ends of the flow, and sigma at the last."""
    t = [jnp.asarray(t) for t in (sde.t_min, sde.t_max)]
    alpha, sigma = ([float(schedule(time)) for time in t] for schedule in (sde.alpha, sde.sigma))
    return alpha, [math.hypot(a * STD, s) for a, s in zip(alpha, sigma, strict=True)], sigma[1]


def closed_form(sde, stored, levels, value_range, repeats=1):
    """Mean bits/dim over images and dequantization noise under the linear flow and its prior, and the standard error of
    a mean over `repeats` draws of the noise.

    z = alpha_1 m + (x - alpha_0 m) S_1 / S_0 and log p(x) = log N(z; 0, sigma_1^2) + D log(S_1 / S_0), quadratic in x,
    and x = low + (v + u) h with u uniform on [0, 1).
    """
    (alpha0, alpha1), (s0, s1), sigma1 = parts(sde)
    low, high = value_range
    width, slope = (high - low) / levels, s1 / s0
    v = np.asarray(stored, float).reshape(len(stored), -1)
    a, b = slope * width, alpha1 * MEAN + (low + v * width - alpha0 * MEAN) * slope  # z = b + a u
    mean_square = b**2 + a * b + a**2 / 3
    # Var (b + a u)^2 = 4 a^2 b^2 Var u + 4 a^3 b Cov(u, u^2) + a^4 Var u^2
    variance = 4 * a**2 * b**2 / 12 + 4 * a**3 * b / 12 + a**4 * 4 / 45
    nats = mean_square / (2 * sigma1**2) + math.log(sigma1) + 0.5 * math.log(2 * math.pi) - math.log(slope)
    bits = nats / math.log(2) - math.log2(width)
    error = np.sqrt((variance / (2 * sigma1**2) ** 2).sum(1).sum() / repeats) / v.shape[1] / len(v) / math.log(2)
    return bits.mean(), error


@pytest.mark.parametrize(
    ("name", "split", "levels", "estimator"),
    [
        ("digits", "test", 17, ["divergence=exact", "num_images=100"]),
        ("digits_ve", "test", 17, ["divergence=exact", "num_images=100"]),
        ("digits_subvp", "train", 17, ["divergence=rademacher", "num_images=100"]),
        ("npz", None, 256, ["divergence=gaussian", "num_probes=4", "split=none"]),
    ],
)
def test_bits_per_dim_are_those_of_the_density(runs, name, split, levels, estimator):
    workdir, kind, overrides, value_range = runs(name)
    asked = [f"eval.{key}" for key in (*estimator, "bits_per_dim=true", "loss=false", "repeats=3", "rtol=1e-6")]
    config = finished(kind, *overrides, *asked, *([f"eval.split={split}"] if split else []))
    output = evaluate.evaluate(config, workdir, say=quiet)
    actual, sde = metrics(output)["bits_per_dim"], EXACT_SDES[kind]
    if split:
        config = settings.with_values(config, {"data.split": split})
    stored = all_images(build.dataset(config))[: actual["num_images"]]
    expected, noise = closed_form(sde, stored, levels, value_range, repeats=3)
    dim, probes = stored[0].size, 0.0
    if "divergence=gaussian" in estimator:  # v' J v = c |v|^2, whose variance is 2 c^2 D
        alpha, spread, _ = parts(sde)
        c = math.log(spread[1] / spread[0]) - math.log(alpha[1] / alpha[0])
        probes = abs(c) * math.sqrt(2 * dim / 4) / dim / math.log(2) / math.sqrt(3 * len(stored))
        assert actual["standard_error_probes"] == pytest.approx(probes, rel=0.3)
    total = math.hypot(noise, probes)
    assert abs(actual["mean"] - expected) < 4 * total + 2e-5, (actual, expected)
    assert actual["standard_error_noise"] == pytest.approx(total, rel=0.3)
    values = column(output, "bits_per_dim", "value").reshape(3, -1)
    assert actual["standard_error"] == pytest.approx(values.mean(0).std(ddof=1) / math.sqrt(len(stored)), rel=1e-9)
    assert (actual["min"], actual["max"]) == (values.min(), values.max())
    assert actual["not_converged"] == 0 and 14 < actual["evaluations_mean"] <= actual["evaluations_max"]
    with Image.open(output / "bits_per_dim.png") as picture:
        picture.load()


def test_points_have_nats_of_their_own_density(tmp_path):
    overrides = ["data.num_points=200", "data.distribution=gaussians", "data.seed=4"]
    train(finished("vp", *overrides, base="toy"), tmp_path, quiet)
    said, asked = [], ["eval.bits_per_dim=true", "eval.loss=false", "eval.divergence=exact", "eval.rtol=1e-6"]
    output = evaluate.evaluate(finished("vp", *overrides, *asked, base="toy"), tmp_path, say=said.append)
    actual = column(output, "nats_per_dim", "value")
    fresh = finished("vp", *overrides, "data.seed=5", base="toy")  # the seed after that of the run's points
    x = np.asarray(all_images(build.dataset(fresh)), float)
    (alpha0, alpha1), (s0, s1), sigma1 = parts(VP())
    z = alpha1 * MEAN + (x - alpha0 * MEAN) * s1 / s0
    nats = z**2 / (2 * sigma1**2) + math.log(sigma1) + 0.5 * math.log(2 * math.pi) - math.log(s1 / s0)
    np.testing.assert_allclose(actual, nats.mean(axis=1), atol=2e-4, rtol=2e-5)
    assert any("in nats, not dequantized" in line for line in said) and any("points seed 5" in line for line in said)
    assert "bits_per_dim" not in metrics(output)


def loss_closed_form(sde, x0, t):
    """E |eps_hat - eps|^2 per pixel at time t: the error is linear in x0 - m and eps."""
    alpha, sigma = (np.asarray(schedule(jnp.asarray(t)), float) for schedule in (sde.alpha, sde.sigma))
    variance = (alpha * STD) ** 2 + sigma**2
    return (sigma * alpha / variance) ** 2 * np.mean((x0 - MEAN) ** 2) + ((alpha * STD) ** 2 / variance) ** 2


def test_the_loss_is_the_expected_one_at_every_noise_level(runs):
    workdir, kind, overrides, _ = runs("digits")
    output = evaluate.evaluate(finished(kind, *overrides, "eval.draws=30"), workdir, say=quiet)
    sde, grid = VP(), jnp.linspace(VP().t_min, VP().t_max, 20_001)
    levels = np.asarray(
        normalized_log_nsr(sde, prng.per_image(jax.random.key(0), jnp.arange(20_001)), times=lambda *_: grid)
    )
    for name, split, num in (("loss", "test", 359), ("training_loss", "train", 359)):
        actual = metrics(output)[name]
        x0 = all_images(build.dataset(finished(kind, f"data.split={split}")))[:num] / 16
        expected = loss_closed_form(sde, x0, grid)
        assert actual["num_images"] == num
        assert abs(actual["mean"] - expected.mean()) < 4 * actual["standard_error"]
        assert actual["standard_error"] < 0.02 * actual["mean"]
        visited = column(output, name, "level").reshape(num, 30)
        assert np.ptp(np.histogram(visited, bins=10, range=(0, 1))[0]) < 30  # alike: less than one in a hundred off
        for number, (mean, error) in enumerate(
            zip(actual["level_loss"], actual["level_loss_standard_error"], strict=True)
        ):
            at = np.interp((number + (np.arange(100) + 0.5) / 100) / 10, levels, np.asarray(grid))
            assert abs(mean - loss_closed_form(sde, x0, at).mean()) < 4 * error, number
    with Image.open(output / "level_loss.png") as picture:
        picture.load()


class Prejudiced(nn.Module):
    """Logits independent of the image: class 3 is the most probable in little noise, class 0 in much noise."""

    num_classes: int = 10

    is_classifier: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x, condition, train=False):
        logits = self.param("logits", lambda _: 2.0 * jax.nn.one_hot(jnp.array([3, 0]), self.num_classes))
        middle = 0.5 * (math.log(0.03) + math.log(1.0))
        return logits[(condition.noise > middle).astype(int)]


def test_a_classifier_has_an_accuracy_at_every_noise_level(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "wide_resnet", Prejudiced)

    def config(*more):
        classifier = loaded("digits_classifier", ":debug")
        classifier.model = dict(name="wide_resnet", num_classes=10)
        still = ["optimizer.learning_rate=0.0", "train.steps=1", f"train.ema_decay={DECAY}"]
        return settings.from_config(classifier, [*still, *more])

    train(config("train.preview_every=0"), tmp_path, quiet)
    lines = []
    output = evaluate.evaluate(config("eval.draws=10"), tmp_path, say=lines.append)
    logs = np.log(np.exp([2.0, 0.0]) / (math.exp(2.0) + 9))
    for name, split in (("training_loss", "train"), ("loss", "test")):
        actual = metrics(output)[name]
        labels = build.dataset(config(f"data.split={split}")).gather(np.arange(359))[1]
        shares = [np.mean(labels == 3)] * 5 + [np.mean(labels == 0)] * 5
        losses = [-share * logs[0] - (1 - share) * logs[1] for share in shares]
        assert shares[0] != shares[9] and actual["accuracy"]["mean"] == pytest.approx(shares[0])
        # ten draws visit each bin once, but for rounding
        assert actual["accuracy_all_levels"]["mean"] == pytest.approx(np.mean(shares), abs=2e-3)
        assert actual["level_accuracy"] == pytest.approx(shares, abs=4e-3)
        assert abs(actual["mean"] - np.mean(losses)) < 4 * actual["standard_error"] < 0.1
        assert actual["level_loss"] == pytest.approx(losses, abs=1e-2)
    parts = f"accuracy {shares[0]:.4g} +- ", f" at the smallest noise, {actual['accuracy_all_levels']['mean']:.4g} +- "
    assert any(line.startswith(parts[0]) and parts[1] in line for line in lines)
    with pytest.raises(UserError, match=r"config\.eval\.bits_per_dim=true: a classifier .* has no density"):
        config("eval.bits_per_dim=true")


@pytest.mark.parametrize("kind", SDES)
def test_times_visit_the_noise_levels_alike(kind):
    sde, wanted = SDES[kind](), jnp.linspace(0, 0.999, 101)
    t = times_of_levels(sde, wanted, None)
    keys = prng.per_image(jax.random.key(0), jnp.arange(101))
    np.testing.assert_allclose(normalized_log_nsr(sde, keys, times=lambda *_: t), wanted, atol=1e-4)
    ladder = times_of_levels(sde, jnp.linspace(0, 0.999, 100), 5)
    steps, counts = np.unique(np.asarray(ladder), return_counts=True)
    np.testing.assert_allclose(steps, np.linspace(sde.t_min, sde.t_max, 5), rtol=1e-6)
    assert counts.tolist() == [20] * 5
