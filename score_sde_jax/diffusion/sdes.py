"""Diffusions x_t = alpha(t) x_0 + sigma(t) eps, each defined by its two functions alpha and sigma.

Everything else (drift, diffusion, prior, perturbation, score, denoised image) follows from these two, once, in `SDE`.
Times are scalars in sampling and (batch, 1, ..., 1) in training. Equation numbers refer to docs/theory.md.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from score_sde_jax import keys as prng

Time = Float[Array, "..."]
BISECTIONS = 64
"""Halvings of an interval of times: to the last digit of float64."""


def _ddt(schedule: Callable[[Time], Time], t: Time) -> Time:
    """Elementwise time derivative of a schedule."""
    return jax.jvp(schedule, (t,), (jnp.ones_like(t),))[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SDE(abc.ABC):
    """Linear Gaussian diffusion dx = f(t) x dt + g(t) dw on t_min <= t <= t_max.

    Source: arXiv 2011.13456, Section 3.4 and Appendix B. A subclass defines `alpha` and `sigma` and overrides nothing
    else.
    """

    time_is_sigma: ClassVar[bool] = False
    """Whether t is the standard deviation of the noise."""
    has_ladder: ClassVar[bool] = True
    """Whether evenly spaced times are the noise levels of a published ladder."""

    t_min: float = 1e-5
    t_max: float = 1.0

    @abc.abstractmethod
    def alpha(self, t: Time) -> Time:
        """Scale of the clean image in x_t."""

    @abc.abstractmethod
    def sigma(self, t: Time) -> Time:
        """Standard deviation of the noise in x_t."""

    def perturb(
        self, keys: Key[Array, " batch"], x0: Float[Array, "batch *shape"], t: Time
    ) -> tuple[Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
        """Noisy image x_t and the unit noise eps in it, eq. (2)."""
        eps = prng.normal(keys, x0)
        return self.alpha(t) * x0 + self.sigma(t) * eps, eps

    def drift(self, t: Time) -> Time:
        """Rate f(t) of the linear drift, eq. (3)."""
        return _ddt(lambda t: jnp.log(self.alpha(t)), t)

    def diffusion_squared(self, t: Time) -> Time:
        """Squared diffusion coefficient g(t)^2, eq. (3)."""
        return _ddt(lambda t: self.sigma(t) ** 2, t) - 2 * self.drift(t) * self.sigma(t) ** 2

    def half_log_snr(self, t: Time) -> Time:
        """Half the log signal-to-noise ratio, lambda = log(alpha / sigma); it falls with t in every diffusion."""
        return -jnp.log(self.sigma(t) / self.alpha(t))

    def normalized_log_nsr(self, t: Time) -> Time:
        """Log noise-to-signal ratio log(sigma / alpha), scaled linearly to 0 at t_min and 1 at t_max."""
        at_t_min, at_t_max = self._half_log_snr_range(t)
        return (at_t_min - self.half_log_snr(t)) / (at_t_min - at_t_max)

    def time_at(self, normalized_log_nsr: Time) -> Time:
        """Time at each normalized log noise-to-signal ratio, by bisection."""
        at_t_min, at_t_max = self._half_log_snr_range(normalized_log_nsr)
        target = at_t_min - (at_t_min - at_t_max) * normalized_log_nsr

        def bisect(_: Array, bracket: tuple[Time, Time]) -> tuple[Time, Time]:
            lower, upper = bracket
            middle = 0.5 * (lower + upper)
            is_below = self.half_log_snr(middle) > target
            return jnp.where(is_below, middle, lower), jnp.where(is_below, upper, middle)

        bracket = jnp.full_like(target, self.t_min), jnp.full_like(target, self.t_max)
        return jax.lax.fori_loop(0, BISECTIONS, bisect, bracket)[1]

    def _half_log_snr_range(self, like: Time) -> tuple[Time, Time]:
        """Half log signal-to-noise ratios at t_min and t_max, of the type of `like`."""
        at_t_min, at_t_max = (self.half_log_snr(jnp.asarray(t, like.dtype)) for t in (self.t_min, self.t_max))
        return at_t_min, at_t_max

    def prior(self, keys: Key[Array, " batch"], like: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
        """Start of sampling, N(0, sigma(t_max)^2), of the shape and type of `like`."""
        return self.sigma(jnp.asarray(self.t_max, like.dtype)) * prng.normal(keys, like)

    def score(self, eps: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch *shape"]:
        """grad_x log p_t(x) from eps = E[eps | x_t = x], eq. (4)."""
        return -eps / self.sigma(t)

    def denoised(
        self, x: Float[Array, "batch *shape"], eps: Float[Array, "batch *shape"], t: Time
    ) -> Float[Array, "batch *shape"]:
        """E[x_0 | x_t = x] from eps = E[eps | x_t = x] (Tweedie), eq. (5)."""
        return (x - self.sigma(t) * eps) / self.alpha(t)

    def velocity(
        self, x: Float[Array, "batch *shape"], eps: Float[Array, "batch *shape"], t: Time
    ) -> Float[Array, "batch *shape"]:
        """dx/dt of the probability flow from eps = E[eps | x_t = x], eq. (14)."""
        return self.drift(t) * x - 0.5 * self.diffusion_squared(t) * self.score(eps, t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VE(SDE):
    """Variance exploding: the continuous form of NCSN's geometric ladder (arXiv 2011.13456, eq. 9 and Appendix C)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min={self.sigma_min} must be above 0 and below sigma_max={self.sigma_max}")

    def alpha(self, t: Time) -> Time:
        """Constant 1."""
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """Geometric from sigma_min to sigma_max, eq. (8)."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LinearBeta(SDE):
    """Noise rate beta(t) that rises linearly from beta_min to beta_max."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"beta_min={self.beta_min} must be above 0 and below beta_max={self.beta_max}")

    def integral_beta(self, t: Time) -> Time:
        """Integral of beta from 0 to t."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t: Time) -> Time:
        """exp(-1/2 integral of beta)."""
        return jnp.exp(-0.5 * self.integral_beta(t))


@dataclasses.dataclass(frozen=True, kw_only=True)
class VP(_LinearBeta):
    """Variance preserving: the continuous form of DDPM (arXiv 2011.13456, eq. 11 and Appendix C)."""

    def sigma(self, t: Time) -> Time:
        """sqrt(1 - alpha^2), without cancellation near t = 0."""
        return jnp.sqrt(-jnp.expm1(-self.integral_beta(t)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubVP(_LinearBeta):
    """Sub-variance preserving: the variance stays below that of VP (arXiv 2011.13456, eq. 12 and Appendix C)."""

    has_ladder: ClassVar[bool] = False

    def sigma(self, t: Time) -> Time:
        """1 - alpha^2, without cancellation near t = 0."""
        return -jnp.expm1(-self.integral_beta(t))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDM(SDE):
    """Time is the noise level itself: alpha = 1, sigma(t) = t (arXiv 2206.00364, Table 1)."""

    time_is_sigma: ClassVar[bool] = True

    t_min: float = 0.002
    t_max: float = 80.0

    def alpha(self, t: Time) -> Time:
        """Constant 1."""
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """The time t."""
        return t


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM(SDE):
    """The table of DDPM: level k of num_levels sits at t = k / (num_levels - 1) (arXiv 2006.11239, Section 4).

    Not the continuous VP: alpha differs by 3.4 percent at the last level. Between levels log alpha is linear in t.
    """

    beta_min: float = 1e-4
    beta_max: float = 0.02
    num_levels: int = 1000
    t_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max < 1:
            raise ValueError(f"need 0 < beta_min={self.beta_min} < beta_max={self.beta_max} < 1")
        if self.num_levels < 2:
            raise ValueError(f"num_levels={self.num_levels} must be at least 2")

    @functools.cached_property
    def _log_alpha_table(self) -> np.ndarray:
        betas = np.linspace(self.beta_min, self.beta_max, self.num_levels)
        return 0.5 * np.cumsum(np.log1p(-betas))

    def _log_alpha(self, t: Time) -> Time:
        levels = np.linspace(0.0, 1.0, self.num_levels)
        return jnp.interp(t, levels.astype(t.dtype), self._log_alpha_table.astype(t.dtype))

    def alpha(self, t: Time) -> Time:
        """Sqrt of the cumulative product of 1 - beta."""
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: Time) -> Time:
        """sqrt(1 - alpha^2)."""
        return jnp.sqrt(-jnp.expm1(2 * self._log_alpha(t)))


SDES = {"ve": VE, "vp": VP, "subvp": SubVP, "edm": EDM, "ddpm": DDPM}
