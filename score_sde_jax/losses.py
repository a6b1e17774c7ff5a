"""Denoising score matching: when to look (training times), how much it counts (weights), and the loss itself.

The objective of arXiv 1907.05600, eq. (6) of docs/theory.md,
    1/2 E || s(x~, sigma) + (x~ - x) / sigma^2 ||^2 weighted by lambda(sigma),
is computed in noise space, eq. (7): with s = -eps_hat / sigma it equals 1/2 E w(t) || eps_hat - eps ||^2 with w =
lambda / sigma^2.
In float32 the noise form keeps its digits where the others lose them (docs/design.md).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from score_sde_jax import keys as prng
from score_sde_jax.parameterization import NoiseFn
from score_sde_jax.sdes import SDE, Time

TrainingTimes = Callable[[SDE, Key[Array, " batch"]], Float[Array, " batch"]]
Weight = Callable[[SDE, Time], Time]

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


# ------------------------------------------------------------------------- weights w(t) = lambda / sigma^2


def simple(sde: SDE, t: Time) -> Time:
    """Lambda = sigma^2: the weight of NCSN, DDPM and score-SDE, 1 in noise space."""
    del sde
    return jnp.ones_like(t)


def likelihood(sde: SDE, t: Time) -> Time:
    """Lambda = g^2: the loss bounds the likelihood (arXiv 2101.09258, Theorem 1), eq. (11)."""
    return sde.diffusion_squared(t) / sde.sigma(t) ** 2


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
    key_t, key_eps = _keys(keys)
    t = prng.bcast(times(sde, key_t), x0)
    x_t, eps = sde.perturb(key_eps, x0, t)
    return reduction(weight(sde, t) * (noise_fn(x_t, t) - eps) ** 2)  # eq. (7)


def noise_level(sde: SDE, keys: Key[Array, " batch"], *, times: TrainingTimes) -> Float[Array, " batch"]:
    """Where `score_matching_loss` looks with these keys: 0 at the smallest noise, 1 at the largest, even in log
    sigma / alpha.
    """

    def log_ratio(t: Time) -> Time:
        return jnp.log(sde.sigma(t) / sde.alpha(t))

    low, high = (log_ratio(jnp.asarray(t)) for t in (sde.t_min, sde.t_max))
    return (log_ratio(times(sde, _keys(keys)[0])) - low) / (high - low)


def _keys(keys: Key[Array, " batch"]) -> tuple[Key[Array, " batch"], ...]:
    """Keys of the time and of the noise."""
    return prng.split(keys, 2)


TIMES = {"ladder": ladder, "uniform": uniform, "log_normal": log_normal}
WEIGHTS = {"simple": simple, "likelihood": likelihood, "edm": edm}
REDUCTIONS = {"mean": mean, "half_sum": half_sum}
