"""Data whose noisy distributions, scores and moments are known in closed form."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from score_sde_jax.diffusion.sdes import DDPM, EDM, SDE, VE, VP, SubVP


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Images of independent pixels, each sampled from one mixture of Gaussians."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def at(self, sde: SDE, t: float) -> "Mixture":
        """Return the distribution of x_t = alpha x_0 + sigma eps, which is a mixture too."""
        alpha, sigma = (float(f(jnp.asarray(t, jnp.float32))) for f in (sde.alpha, sde.sigma))
        stds = tuple(float(np.hypot(alpha * std, sigma)) for std in self.stds)
        return Mixture(self.weights, tuple(alpha * mean for mean in self.means), stds)

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Sample independent images."""
        key_component, key_noise = jax.random.split(key)
        component = jax.random.categorical(key_component, jnp.log(jnp.asarray(self.weights)), shape=shape)
        noise = jax.random.normal(key_noise, shape)
        return jnp.asarray(self.means)[component] + jnp.asarray(self.stds)[component] * noise

    def noise_fn(self, sde: SDE) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """The exact E[eps | x_t = x]: the posterior mean of every component, by its posterior weight."""

        def noise_fn(x: jax.Array, t: jax.Array) -> jax.Array:
            alpha, sigma = sde.alpha(t), sde.sigma(t)
            residuals = [x - alpha * mean for mean in self.means]
            variances = [(alpha * std) ** 2 + sigma**2 for std in self.stds]
            logits = [
                np.log(weight) - 0.5 * residual**2 / variance - 0.5 * jnp.log(variance)
                for weight, residual, variance in zip(self.weights, residuals, variances, strict=True)
            ]
            # Pixel by pixel, so that XLA makes one loop of it: a softmax of the stacked logits takes 30 times as long.
            largest = functools.reduce(jnp.maximum, logits)
            shares = [jnp.exp(logit - largest) for logit in logits]
            parts = zip(shares, residuals, variances, strict=True)
            return sum(share * sigma * r / variance for share, r, variance in parts) / sum(shares)

        return noise_fn

    def mean(self) -> float:
        """Mean of a pixel."""
        return float(np.dot(self.weights, self.means))

    def cdf(self, x: float) -> float:
        """Probability of a pixel below x."""
        parts = zip(self.weights, self.means, self.stds, strict=True)
        return float(sum(weight * stats.norm.cdf(x, mean, std) for weight, mean, std in parts))

    def central_moment(self, power: int) -> float:
        """E (x - mean)^power, by a quadrature that is exact up to power 15."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(8)
        weights = weights / weights.sum()
        parts = zip(self.weights, self.means, self.stds, strict=True)
        return sum(w * np.dot(weights, (m + s * nodes - self.mean()) ** power) for w, m, s in parts)

    def std(self) -> float:
        """Standard deviation of a pixel."""
        return float(np.sqrt(self.central_moment(2)))


GAUSSIAN = Mixture((1.0,), (0.7,), (0.4,))
SKEWED = Mixture((0.25, 0.75), (-0.5, 0.6), (0.15, 0.3))

# One small diffusion of every kind, smooth in time: (sde, start and end of a time interval).
SDE_CASES: dict[str, tuple[SDE, float, float]] = {
    "ve": (VE(sigma_min=0.05, sigma_max=5.0), 0.9, 0.4),
    "vp": (VP(), 0.6, 0.2),
    "subvp": (SubVP(), 0.6, 0.2),
    "edm": (EDM(), 3.0, 0.5),
    "ddpm": (DDPM(beta_min=0.1, beta_max=0.9, num_levels=2), 0.9, 0.2),
}


def assert_moments(x: jax.Array, target: Mixture, *, bias: float = 0.0, errors: float = 4.0) -> None:
    """The first three central moments, each within `errors` standard errors plus bias std^power."""
    deviations = np.asarray(x, np.float64).ravel() - target.mean()
    for power in (1, 2, 3):
        expected = 0.0 if power == 1 else target.central_moment(power)
        variance = target.central_moment(2 * power) - expected**2
        allowed = errors * np.sqrt(variance / deviations.size) + bias * target.std() ** power
        actual = np.mean(deviations**power)
        assert abs(actual - expected) < allowed, f"moment {power}: {actual}, not {expected} +- {allowed}"
