"""Score matching: when to look (training times), how much it counts (weights), and the losses themselves.

The objective of arXiv 1907.05600, eq. (6) of docs/theory.md,
    1/2 E || s(x~, sigma) + (x~ - x) / sigma^2 ||^2 weighted by lambda(sigma),
is computed in noise space, eq. (7): with s = -eps_hat / sigma it equals 1/2 E w(t) || eps_hat - eps ||^2 with w =
lambda / sigma^2.
In float32 the noise form keeps its digits where the others lose them (docs/design.md).
Sliced score matching, eq. (31), has the same minimum and needs no noise to compare with.

A loss draws time and noise from the two halves of each image's key; everything else that training draws with the same
key has a named stream (`keys.Stream`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.parameterization import LogProbabilities, NoiseFn
from score_sde_jax.diffusion.sdes import SDE, Time
from score_sde_jax.keys import Stream

TrainingTimes = Callable[[SDE, Key[Array, " batch"]], Float[Array, " batch"]]
Weight = Callable[[SDE, Time], Time]

NUM_BINS = 10
"""Noise levels are binned into this many for the loss per level."""

# ------------------------------------------------------------------------- training times


def _unit(keys: Key[Array, " batch"]) -> Float[Array, " batch"]:
    return prng.uniform(keys, jnp.zeros(len(keys)))


def ladder(sde: SDE, keys: Key[Array, " batch"], *, num_levels: int = 10) -> Float[Array, " batch"]:
    """A uniformly drawn level of the ladder of num_levels times from t_max to t_min, eq. (8)."""
    if num_levels < 2:
        raise ValueError(f"num_levels={num_levels} must be at least 2")
    level = jnp.floor(_unit(keys) * num_levels)
    return sde.t_max + (sde.t_min - sde.t_max) * level / (num_levels - 1)


def uniform(sde: SDE, keys: Key[Array, " batch"]) -> Float[Array, " batch"]:
    """Uniform on [t_min, t_max) (arXiv 2011.13456, eq. 7)."""
    return sde.t_min + (sde.t_max - sde.t_min) * _unit(keys)


def log_normal(sde: SDE, keys: Key[Array, " batch"], *, mean: float = -1.2, std: float = 1.2) -> Float[Array, " batch"]:
    """Log-normal in t, cut to [t_min, t_max]; for SDEs whose time is sigma (arXiv 2206.00364, Table 1)."""
    t = jnp.exp(mean + std * prng.normal(keys, jnp.zeros(len(keys))))
    return jnp.clip(t, sde.t_min, sde.t_max)


def importance(sde: SDE, keys: Key[Array, " batch"]) -> Float[Array, " batch"]:
    """Of density proportional to g^2 / sigma^2, which is uniform in log sigma / alpha, eq. (29) (arXiv 2101.09258,
    Section 5.1).
    """
    return sde.time_at(_unit(keys))


# ------------------------------------------------------------------------- weights w(t) = lambda / sigma^2


def simple(sde: SDE, t: Time) -> Time:
    """Lambda = sigma^2: the weight of NCSN, DDPM and score-SDE, 1 in noise space."""
    del sde
    return jnp.ones_like(t)


def likelihood(sde: SDE, t: Time) -> Time:
    """Lambda = g^2: the loss bounds the likelihood (arXiv 2101.09258, Theorem 1), eq. (11)."""
    return sde.diffusion_squared(t) / sde.sigma(t) ** 2


def likelihood_importance(sde: SDE, t: Time) -> Time:
    """The constant that makes the loss at `importance` times that of `likelihood` at uniform times, eq. (30)."""
    at_t_min, at_t_max = (sde.half_log_snr(jnp.asarray(end, t.dtype)) for end in (sde.t_min, sde.t_max))
    return jnp.full_like(t, 2 * (at_t_min - at_t_max) / (sde.t_max - sde.t_min))


def edm(sde: SDE, t: Time, *, sigma_data: float = 0.5) -> Time:
    """Unit weight on the output of an edm-parameterized network (arXiv 2206.00364, Table 1), eq. (12)."""
    return 1 + (sde.sigma(t) / (sde.alpha(t) * sigma_data)) ** 2


# ------------------------------------------------------------------------- the loss


def mean(errors: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """Mean over pixels and channels."""
    return jnp.mean(jnp.reshape(errors, (len(errors), -1)), axis=1)


def half_sum(errors: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """Half the sum over pixels and channels, as in eq. (6) and the papers of NCSN."""
    return 0.5 * jnp.sum(jnp.reshape(errors, (len(errors), -1)), axis=1)


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
    """Denoising score matching loss of each image, eq. (7) (arXiv 1907.05600, eq. 5; arXiv 2011.13456, eq. 7).

    Its mean over the batch is the objective. Image i uses keys[i] alone.
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
    num_projections: int = 1,
) -> Float[Array, " batch"]:
    """Sliced score matching loss of each image at every noise level, eq. (31), with the variance reduction of arXiv
    1905.07088, Section 4, annealed as in the code of NCSN.

    Of the same gradient in expectation as `score_matching_loss`, and below it by half the weight for every number of an
    image. `num_projections` random directions of signs are averaged; each is a derivative of the network forwards.
    Raises ValueError for fewer than 1 projection.
    """
    if num_projections < 1:
        raise ValueError(f"num_projections={num_projections} must be at least 1")
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
    """Cross-entropy of a classifier of noisy images, eq. (34) (arXiv 2011.13456, Appendix I), in nats.

    Time and noise as in `score_matching_loss`; its minimum is p(class | x_t). `reduction` sees one number an image.
    """
    t, x_t, _ = _perturbed(sde, keys, x0, times)
    logs = log_probabilities(x_t, t)
    chosen = jnp.sum(jax.nn.one_hot(labels, logs.shape[1], dtype=logs.dtype) * logs, axis=1, keepdims=True)
    return reduction(-jnp.reshape(weight(sde, t), (-1, 1)) * chosen)


def correctly_classified(
    log_probabilities: LogProbabilities,
    sde: SDE,
    keys: Key[Array, " batch"],
    x0: Float[Array, "batch *shape"],
    labels: Int[Array, " batch"],
    t: Time,
) -> Bool[Array, " batch"]:
    """Whether the most probable class of each image, made noisy to time t, is its own."""
    x_t, _ = sde.perturb(keys, x0, t)
    return jnp.argmax(log_probabilities(x_t, t), axis=1) == labels


def normalized_log_nsr(sde: SDE, keys: Key[Array, " batch"], *, times: TrainingTimes) -> Float[Array, " batch"]:
    """Where a loss looks with these keys: 0 at the smallest noise, 1 at the largest, even in log sigma / alpha."""
    return sde.normalized_log_nsr(times(sde, _keys(keys)[0]))


def _keys(keys: Key[Array, " batch"]) -> tuple[Key[Array, " batch"], ...]:
    """Keys of the time and of the noise."""
    return prng.split(keys, 2)


def _perturbed(
    sde: SDE, keys: Key[Array, " batch"], x0: Float[Array, "batch *shape"], times: TrainingTimes
) -> tuple[Time, Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
    """Time, noisy image and the noise in it, as every loss draws them."""
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
