"""Training-time distributions, loss weightings and losses.

The objective of arXiv 1907.05600, eq. (6) of docs/theory.md,

    1/2 E || s(x~, sigma) + (x~ - x) / sigma^2 ||^2, weighted by lambda(sigma),

is computed in noise space: with s = -eps_hat / sigma it equals 1/2 E w(t) || eps_hat - eps ||^2 with w = lambda /
sigma^2, eq. (7). Other forms lose digits to cancellation in float32 (docs/design.md). Sliced score matching, eq. (31),
has the same minimizer and needs no target.

A loss samples time and noise with two halves of each image's key. All other random numbers of training come from the
named streams of the same key (`keys.Stream`).
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.parameterization import LogProbabilities, NoiseFn
from score_sde_jax.diffusion.sdes import SDE, Time
from score_sde_jax.keys import Stream
from score_sde_jax.ranges import Count, Levels, Positive, Range

TrainingTimes = Callable[[SDE, Key[Array, " batch"]], Float[Array, " batch"]]
Weight = Callable[[SDE, Time], Time]

LogTime = Annotated[float, Range(-40, 40)]
"""Mean of the logarithm of a time, whose square float32 holds."""
LogTimeStd = Annotated[float, Range(1e-18, 40)]
"""Standard deviation of the logarithm of a time."""

NUM_BINS = 10
"""Number of bins of the noise level for which training and evaluation report the loss."""

# ------------------------------------------------------------------------- training-time distributions


def _unit(keys: Key[Array, " batch"]) -> Float[Array, " batch"]:
    """Sample one number per image, uniform on [0, 1)."""
    return prng.uniform(keys, jnp.zeros(len(keys)))


def ladder(sde: SDE, keys: Key[Array, " batch"], *, num_levels: Levels = 10) -> Float[Array, " batch"]:
    """Sample training times uniformly from num_levels evenly spaced times, NCSN's discrete noise levels.

    Args:
        sde: diffusion.
        keys: one PRNG key per image.
        num_levels: number of noise levels from t_max to t_min, at least 2.

    Raises:
        ValueError: num_levels is below 2.

    Reference: arXiv 1907.05600, Section 4.2; theory.md eq. (8).
    """
    if num_levels < 2:
        raise ValueError(f"num_levels must be >= 2, got {num_levels}")
    level = jnp.floor(_unit(keys) * num_levels)
    return sde.t_max + (sde.t_min - sde.t_max) * level / (num_levels - 1)


def uniform(sde: SDE, keys: Key[Array, " batch"]) -> Float[Array, " batch"]:
    """Sample training times uniformly from [t_min, t_max).

    Args:
        sde: diffusion.
        keys: one PRNG key per image.

    Reference: arXiv 2011.13456, eq. 7.
    """
    return sde.t_min + (sde.t_max - sde.t_min) * _unit(keys)


def log_normal(
    sde: SDE, keys: Key[Array, " batch"], *, mean: LogTime = -1.2, std: LogTimeStd = 1.2
) -> Float[Array, " batch"]:
    """Sample training times from a log-normal distribution, for SDEs whose time is sigma.

    Args:
        sde: diffusion; times outside [t_min, t_max] are clipped to it.
        keys: one PRNG key per image.
        mean: mean of log t.
        std: standard deviation of log t; positive.

    Reference: arXiv 2206.00364, Table 1.
    """
    t = jnp.exp(mean + std * prng.normal(keys, jnp.zeros(len(keys))))
    return jnp.clip(t, sde.t_min, sde.t_max)


def importance(sde: SDE, keys: Key[Array, " batch"]) -> Float[Array, " batch"]:
    """Sample training times with density proportional to g^2 / sigma^2, which is uniform in the log SNR.

    Args:
        sde: diffusion.
        keys: one PRNG key per image.

    Reference: arXiv 2101.09258, Section 5.1; theory.md eq. (29).
    """
    return sde.time_at(_unit(keys))


# ------------------------------------------------------------------------- loss weightings w = lambda / sigma^2


def simple(sde: SDE, t: Time) -> Time:
    """Return w = 1, lambda = sigma^2, the weighting of NCSN, DDPM and score-SDE.

    Args:
        sde: diffusion.
        t: time.

    Reference: arXiv 1907.05600, Section 4.2; arXiv 2006.11239, eq. 14.
    """
    del sde
    return jnp.ones_like(t)


def likelihood(sde: SDE, t: Time) -> Time:
    """Return w = g^2 / sigma^2, lambda = g^2, for which the loss bounds the negative log-likelihood.

    Args:
        sde: diffusion.
        t: time.

    Reference: arXiv 2101.09258, Theorem 1; theory.md eq. (11).
    """
    return sde.diffusion_squared(t) / sde.sigma(t) ** 2


def likelihood_importance(sde: SDE, t: Time) -> Time:
    """Return the constant with which the loss at `importance` times estimates the `likelihood` loss.

    Args:
        sde: diffusion.
        t: time.

    Reference: arXiv 2101.09258, Section 5.1; theory.md eq. (30).
    """
    at_t_min, at_t_max = (sde.half_log_snr(jnp.asarray(end, t.dtype)) for end in (sde.t_min, sde.t_max))
    return jnp.full_like(t, 2 * (at_t_min - at_t_max) / (sde.t_max - sde.t_min))


def edm(sde: SDE, t: Time, *, sigma_data: Positive = 0.5) -> Time:
    """Return the weighting of EDM, which is 1 on the output F of a network with parameterization `edm`.

    Args:
        sde: diffusion.
        t: time.
        sigma_data: standard deviation of the centered data, in units of x_0; positive.

    Reference: arXiv 2206.00364, Table 1; theory.md eq. (12).
    """
    return 1 + (sde.sigma(t) / (sde.alpha(t) * sigma_data)) ** 2


# ------------------------------------------------------------------------- reductions


def mean(errors: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """Return the mean over the dimensions of each image."""
    return jnp.mean(jnp.reshape(errors, (len(errors), -1)), axis=1)


def half_sum(errors: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """Return half the sum over the dimensions of each image, as in the papers of NCSN and eq. (6)."""
    return 0.5 * jnp.sum(jnp.reshape(errors, (len(errors), -1)), axis=1)


# ------------------------------------------------------------------------- losses


def score_matching_loss(
    noise_fn: NoiseFn,
    sde: SDE,
    keys: Key[Array, " batch"],
    x0: Float[Array, "batch *shape"],
    *,
    times: TrainingTimes = uniform,
    weight: Weight = simple,
    reduction: Callable[[Float[Array, "batch *shape"]], Float[Array, " batch"]] = mean,
) -> Float[Array, " batch"]:
    """Return the denoising score matching (DSM) loss of each image.

    Args:
        noise_fn: noise prediction (x, t) -> eps_hat.
        sde: diffusion.
        keys: one PRNG key per image; the loss of image i depends on keys[i] alone.
        x0: clean images.
        times: training-time distribution (sde, keys) -> t, one of `TIMES`.
        weight: loss weighting (sde, t) -> w, one of `WEIGHTS`.
        reduction: reduction over the dimensions of an image, one of `REDUCTIONS`.

    Reference: arXiv 1907.05600, eq. 5; arXiv 2011.13456, eq. 7; theory.md eq. (7).
    """
    t, x_t, eps = _perturbed(sde, keys, x0, times)
    return reduction(weight(sde, t) * (noise_fn(x_t, t) - eps) ** 2)  # eq. (7)


def sliced_score_matching_loss(
    noise_fn: NoiseFn,
    sde: SDE,
    keys: Key[Array, " batch"],
    x0: Float[Array, "batch *shape"],
    *,
    times: TrainingTimes = uniform,
    weight: Weight = simple,
    reduction: Callable[[Float[Array, "batch *shape"]], Float[Array, " batch"]] = mean,
    num_projections: Count = 1,
) -> Float[Array, " batch"]:
    """Return the variance-reduced sliced score matching loss of the noisy images.

    Its expected gradient is that of `score_matching_loss`; its expectation is lower by a constant, eq. (31).

    Args:
        noise_fn: noise prediction (x, t) -> eps_hat.
        sde: diffusion.
        keys: one PRNG key per image; the loss of image i depends on keys[i] alone.
        x0: clean images.
        times: training-time distribution (sde, keys) -> t, one of `TIMES`.
        weight: loss weighting (sde, t) -> w, one of `WEIGHTS`.
        reduction: reduction over the dimensions of an image, one of `REDUCTIONS`.
        num_projections: number of Rademacher projections, at least 1; each costs one forward-mode JVP.

    Raises:
        ValueError: num_projections is below 1.

    Reference: arXiv 1905.07088; arXiv 1907.05600, Section 2.1; theory.md eq. (31).
    """
    if num_projections < 1:
        raise ValueError(f"num_projections must be >= 1, got {num_projections}")
    t, x_t, _ = _perturbed(sde, keys, x0, times)

    def project(number: Array) -> tuple[Array, Array]:
        v = prng.signs(prng.fold_in(prng.stream(keys, Stream.PROJECTIONS), number), x0)
        eps, slope = jax.jvp(lambda x: noise_fn(x, t), (x_t,), (v,))
        return eps, v * slope

    eps, slopes = jax.vmap(project, out_axes=(None, 0))(jnp.arange(num_projections))
    return reduction(weight(sde, t) * (eps**2 - 2 * sde.sigma(t) * jnp.mean(slopes, axis=0)))  # eq. (31)


def classification_loss(
    log_probabilities: LogProbabilities,
    sde: SDE,
    keys: Key[Array, " batch"],
    x0: Float[Array, "batch *shape"],
    labels: Int[Array, " batch"],
    *,
    times: TrainingTimes = uniform,
    weight: Weight = simple,
    reduction: Callable[[Float[Array, "batch *shape"]], Float[Array, " batch"]] = mean,
) -> Float[Array, " batch"]:
    """Return the cross-entropy, in nats, of a classifier of noisy images.

    Times and noise are those of `score_matching_loss`. The minimum is the posterior p(class | x_t).

    Args:
        log_probabilities: classifier (x, t) -> log p(class | x_t = x) of every class.
        sde: diffusion.
        keys: one PRNG key per image; the loss of image i depends on keys[i] alone.
        x0: clean images.
        labels: class of each image.
        times: training-time distribution (sde, keys) -> t, one of `TIMES`.
        weight: loss weighting (sde, t) -> w, one of `WEIGHTS`.
        reduction: reduction of the one cross-entropy of an image, one of `REDUCTIONS`.

    Reference: arXiv 2011.13456, Appendix I; theory.md eq. (34).
    """
    t, x_t, _ = _perturbed(sde, keys, x0, times)
    log_probs = log_probabilities(x_t, t)
    of_label = jnp.sum(
        jax.nn.one_hot(labels, log_probs.shape[1], dtype=log_probs.dtype) * log_probs, axis=1, keepdims=True
    )
    return reduction(-jnp.reshape(weight(sde, t), (-1, 1)) * of_label)


def correctly_classified(
    log_probabilities: LogProbabilities,
    sde: SDE,
    keys: Key[Array, " batch"],
    x0: Float[Array, "batch *shape"],
    labels: Int[Array, " batch"],
    t: Time,
) -> Bool[Array, " batch"]:
    """Return whether the most probable class of each noisy image at time t is its label.

    Args:
        log_probabilities: classifier (x, t) -> log p(class | x_t = x) of every class.
        sde: diffusion.
        keys: one PRNG key per image, for the noise.
        x0: clean images.
        labels: class of each image.
        t: time.
    """
    x_t, _ = sde.perturb(keys, x0, t)
    return jnp.argmax(log_probabilities(x_t, t), axis=1) == labels


def normalized_log_nsr(sde: SDE, keys: Key[Array, " batch"], *, times: TrainingTimes) -> Float[Array, " batch"]:
    """Return the normalized log noise-to-signal ratio at the time that a loss samples for each image.

    Args:
        sde: diffusion.
        keys: keys of the loss.
        times: training-time distribution of the loss.
    """
    return sde.normalized_log_nsr(times(sde, _keys(keys)[0]))


def _keys(keys: Key[Array, " batch"]) -> tuple[Key[Array, " batch"], ...]:
    """Return the keys of the time and of the noise."""
    return prng.split(keys, 2)


def _perturbed(
    sde: SDE, keys: Key[Array, " batch"], x0: Float[Array, "batch *shape"], times: TrainingTimes
) -> tuple[Time, Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
    """Sample the time, the noisy image and the noise in it, as every loss does."""
    key_t, key_eps = _keys(keys)
    t = prng.bcast(times(sde, key_t), x0)
    return t, *sde.perturb(key_eps, x0, t)


TIMES = {"ladder": ladder, "uniform": uniform, "log_normal": log_normal, "importance": importance}
WEIGHTS = {
    "simple": simple,
    "likelihood": likelihood,
    "likelihood_importance": likelihood_importance,
    "edm": edm,
}
REDUCTIONS = {"mean": mean, "half_sum": half_sum}
LOSSES = {
    "denoising": score_matching_loss,
    "sliced": sliced_score_matching_loss,
    "classification": classification_loss,
}
