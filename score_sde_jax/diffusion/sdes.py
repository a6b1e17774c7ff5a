"""Diffusion processes x_t = alpha(t) x_0 + sigma(t) eps.

A subclass of `SDE` defines alpha and sigma. `SDE` derives drift, diffusion coefficient, prior, perturbation, score and
denoised image from them. Times are scalars in sampling and (batch, 1, ..., 1) in training. Equation numbers refer to
docs/theory.md.
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
from score_sde_jax.ranges import Levels, NonNegative, Positive

Time = Float[Array, "..."]
BISECTIONS = 64
"""Bisections of [t_min, t_max] in `SDE.time_at`, enough for the last bit of float64."""


def _ddt(schedule: Callable[[Time], Time], t: Time) -> Time:
    """Return the elementwise time derivative of a schedule."""
    return jax.jvp(schedule, (t,), (jnp.ones_like(t),))[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SDE(abc.ABC):
    """Linear Gaussian diffusion dx = f(t) x dt + g(t) dw on t_min <= t <= t_max.

    A subclass defines `alpha` and `sigma` and overrides nothing else. log(sigma / alpha) must increase with t.

    Attributes:
        t_min: smallest time of training and sampling; positive where the score diverges at 0.
        t_max: largest time, at which x_t has the distribution of the prior.

    Raises:
        ValueError: t_min is negative or not below t_max.

    Reference: arXiv 2011.13456, Section 3.4 and Appendix B; theory.md eqs. (2) and (3).
    """

    time_is_sigma: ClassVar[bool] = False
    """Whether t is the standard deviation of the noise."""
    has_ladder: ClassVar[bool] = True
    """Whether a published model has its discrete noise levels at evenly spaced times."""

    t_min: NonNegative = 1e-5
    t_max: Positive = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max:
            raise ValueError(f"t_min must be >= 0 and < t_max={self.t_max}, got {self.t_min}")

    @abc.abstractmethod
    def alpha(self, t: Time) -> Time:
        """Return the scale of the clean image in x_t."""

    @abc.abstractmethod
    def sigma(self, t: Time) -> Time:
        """Return the standard deviation of the noise in x_t."""

    def perturb(
        self, keys: Key[Array, " batch"], x0: Float[Array, "batch *shape"], t: Time
    ) -> tuple[Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
        """Sample noisy images x_t of the clean images x_0.

        Args:
            keys: one PRNG key per image.
            x0: clean images.
            t: time, t_min to t_max.

        Returns:
            The noisy images and the standard normal noise eps in them.

        Reference: theory.md eq. (2).
        """
        eps = prng.normal(keys, x0)
        return self.alpha(t) * x0 + self.sigma(t) * eps, eps

    def drift(self, t: Time) -> Time:
        """Return the coefficient f(t) of the linear drift.

        Reference: theory.md eq. (3).
        """
        return _ddt(lambda t: jnp.log(self.alpha(t)), t)

    def diffusion_squared(self, t: Time) -> Time:
        """Return the squared diffusion coefficient g(t)^2.

        Reference: theory.md eq. (3).
        """
        return _ddt(lambda t: self.sigma(t) ** 2, t) - 2 * self.drift(t) * self.sigma(t) ** 2

    def half_log_snr(self, t: Time) -> Time:
        """Return half the log signal-to-noise ratio, log(alpha / sigma), which decreases with t."""
        return -jnp.log(self.sigma(t) / self.alpha(t))

    def normalized_log_nsr(self, t: Time) -> Time:
        """Return the log noise-to-signal ratio log(sigma / alpha), scaled to 0 at t_min and 1 at t_max."""
        at_t_min, at_t_max = self._half_log_snr_range(t)
        return (at_t_min - self.half_log_snr(t)) / (at_t_min - at_t_max)

    def time_at(self, normalized_log_nsr: Time) -> Time:
        """Return the time of each normalized log noise-to-signal ratio, by bisection.

        Args:
            normalized_log_nsr: values of the function of the same name, 0 to 1.
        """
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
        """Return the half log SNR at t_min and at t_max, in the dtype of `like`."""
        at_t_min, at_t_max = (self.half_log_snr(jnp.asarray(t, like.dtype)) for t in (self.t_min, self.t_max))
        return at_t_min, at_t_max

    def prior(self, keys: Key[Array, " batch"], like: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
        """Sample initial noise from N(0, sigma(t_max)^2 I), which approximates p_t at t_max.

        Args:
            keys: one PRNG key per image.
            like: array of the shape and dtype of the result.
        """
        return self.sigma(jnp.asarray(self.t_max, like.dtype)) * prng.normal(keys, like)

    def score(self, eps: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch *shape"]:
        """Return the score grad_x log p_t(x).

        Args:
            eps: predicted noise E[eps | x_t = x].
            t: time.

        Reference: theory.md eq. (4).
        """
        return -eps / self.sigma(t)

    def denoised(
        self, x: Float[Array, "batch *shape"], eps: Float[Array, "batch *shape"], t: Time
    ) -> Float[Array, "batch *shape"]:
        """Return the denoised images E[x_0 | x_t = x] by Tweedie's formula.

        Args:
            x: noisy images.
            eps: predicted noise E[eps | x_t = x].
            t: time.

        Reference: theory.md eq. (5).
        """
        return (x - self.sigma(t) * eps) / self.alpha(t)

    def velocity(
        self, x: Float[Array, "batch *shape"], eps: Float[Array, "batch *shape"], t: Time
    ) -> Float[Array, "batch *shape"]:
        """Return dx/dt of the probability flow ODE.

        Args:
            x: noisy images.
            eps: predicted noise E[eps | x_t = x].
            t: time.

        Reference: theory.md eq. (14).
        """
        return self.drift(t) * x - 0.5 * self.diffusion_squared(t) * self.score(eps, t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VE(SDE):
    """Variance-exploding SDE, the continuous form of NCSN's geometric noise levels.

    Attributes:
        sigma_min: standard deviation of the noise at t = 0, in units of x_0; positive.
        sigma_max: standard deviation of the noise at t = 1; above sigma_min.

    Raises:
        ValueError: sigma_min or sigma_max is out of range.

    Reference: arXiv 2011.13456, eq. 9 and Appendix C; theory.md eq. (8).
    """

    sigma_min: Positive = 0.01
    sigma_max: Positive = 50.0
    t_min: NonNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min must be > 0 and < sigma_max={self.sigma_max}, got {self.sigma_min}")

    def alpha(self, t: Time) -> Time:
        """Return 1."""
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """Return the geometric interpolation between sigma_min and sigma_max.

        Reference: theory.md eq. (8).
        """
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LinearBeta(SDE):
    """Diffusion with alpha = exp(-1/2 integral of beta) and beta(t) linear in t.

    Attributes:
        beta_min: noise rate beta at t = 0; positive.
        beta_max: noise rate beta at t = 1; above beta_min.

    Raises:
        ValueError: beta_min or beta_max is out of range.
    """

    beta_min: Positive = 0.1
    beta_max: Positive = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"beta_min must be > 0 and < beta_max={self.beta_max}, got {self.beta_min}")

    def integral_beta(self, t: Time) -> Time:
        """Return the integral of beta from 0 to t."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t: Time) -> Time:
        """Return exp(-1/2 integral of beta)."""
        return jnp.exp(-0.5 * self.integral_beta(t))


@dataclasses.dataclass(frozen=True, kw_only=True)
class VP(_LinearBeta):
    """Variance-preserving SDE, the continuous form of DDPM.

    Reference: arXiv 2011.13456, eq. 11 and Appendix C.
    """

    def sigma(self, t: Time) -> Time:
        """Return sqrt(1 - alpha^2), without cancellation near t = 0."""
        return jnp.sqrt(-jnp.expm1(-self.integral_beta(t)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubVP(_LinearBeta):
    """Sub-variance-preserving SDE, whose variance is bounded by that of VP.

    Reference: arXiv 2011.13456, eq. 12 and Appendix C.
    """

    has_ladder: ClassVar[bool] = False

    def sigma(self, t: Time) -> Time:
        """Return 1 - alpha^2, without cancellation near t = 0."""
        return -jnp.expm1(-self.integral_beta(t))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDM(SDE):
    """Diffusion of EDM, whose time is the noise level: alpha = 1, sigma(t) = t.

    Attributes:
        t_min: smallest noise level, in units of x_0; positive.
        t_max: largest noise level.

    Reference: arXiv 2206.00364, Table 1.
    """

    time_is_sigma: ClassVar[bool] = True

    t_min: Positive = 0.002
    t_max: Positive = 80.0

    def alpha(self, t: Time) -> Time:
        """Return 1."""
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """Return t."""
        return t


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM(SDE):
    """Discrete noise schedule of DDPM, with noise level k of num_levels at t = k / (num_levels - 1).

    log alpha is interpolated linearly in t between the levels. The schedule differs from the continuous `VP`: alpha by
    3.4 percent at the last level.

    Attributes:
        beta_min: variance beta of the first forward step; positive.
        beta_max: variance beta of the last forward step; above beta_min, below 1.
        num_levels: number of forward steps, at least 2.

    Raises:
        ValueError: beta_min, beta_max or num_levels is out of range.

    Reference: arXiv 2006.11239, Section 4.
    """

    beta_min: Positive = 1e-4
    beta_max: Positive = 0.02
    num_levels: Levels = 1000
    t_min: NonNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_min < self.beta_max < 1:
            raise ValueError(f"0 < beta_min < beta_max < 1 is required, got {self.beta_min} and {self.beta_max}")
        if self.num_levels < 2:
            raise ValueError(f"num_levels must be >= 2, got {self.num_levels}")

    @functools.cached_property
    def _log_alpha_table(self) -> np.ndarray:
        betas = np.linspace(self.beta_min, self.beta_max, self.num_levels)
        return 0.5 * np.cumsum(np.log1p(-betas))

    def _log_alpha(self, t: Time) -> Time:
        times = np.linspace(0.0, 1.0, self.num_levels)
        return jnp.interp(t, times.astype(t.dtype), self._log_alpha_table.astype(t.dtype))

    def alpha(self, t: Time) -> Time:
        """Return the square root of the cumulative product of 1 - beta."""
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: Time) -> Time:
        """Return sqrt(1 - alpha^2)."""
        return jnp.sqrt(-jnp.expm1(2 * self._log_alpha(t)))


SDES = {"ve": VE, "vp": VP, "subvp": SubVP, "edm": EDM, "ddpm": DDPM}
