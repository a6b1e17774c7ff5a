"""Time grids: decreasing times from t_max; a sampler steps between neighbors.

A grid of num_steps steps has num_steps + 1 times. The number of steps is independent of the number of noise levels of
training. Equation numbers refer to docs/theory.md.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.ranges import Levels, NonNegative, Positive, Steps


def ladder(sde: SDE, *, num_levels: Levels = 10) -> Float[Array, " points"]:
    """Return evenly spaced times with the last one repeated, so that a corrector runs at every level.

    Args:
        sde: diffusion.
        num_levels: number of noise levels from t_max to t_min, at least 2.

    Raises:
        ValueError: num_levels is below 2.

    Reference: arXiv 1907.05600, Algorithm 1; theory.md eq. (8).
    """
    if num_levels < 2:
        raise ValueError(f"num_levels must be >= 2, got {num_levels}")
    levels = jnp.linspace(sde.t_max, sde.t_min, num_levels)
    return jnp.append(levels, levels[-1])


def _check_num_steps(num_steps: int) -> None:
    """Raise ValueError if num_steps is below 1."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}")


def uniform(sde: SDE, *, num_steps: Steps = 1000, t_end: NonNegative | None = None) -> Float[Array, " points"]:
    """Return evenly spaced times.

    Args:
        sde: diffusion.
        num_steps: number of steps, at least 1.
        t_end: last time, t_min <= t_end < t_max; None for t_min of the SDE.

    Raises:
        ValueError: num_steps or t_end is out of range.
    """
    _check_num_steps(num_steps)
    end = sde.t_min if t_end is None else t_end
    if not sde.t_min <= end < sde.t_max:
        raise ValueError(f"t_end must be >= t_min={sde.t_min} and < t_max={sde.t_max}, got {end}")
    return jnp.linspace(sde.t_max, end, num_steps + 1)


def karras(sde: SDE, *, num_steps: Steps = 17, rho: Positive = 7.0) -> Float[Array, " points"]:
    """Return times evenly spaced in t^(1/rho), the grid of EDM.

    The paper's N includes the final step to t = 0: N = 18 corresponds to num_steps = 17 and the denoising step.

    Args:
        sde: diffusion.
        num_steps: number of steps from t_max to t_min, at least 1.
        rho: exponent; larger values give shorter steps at small times. Positive.

    Raises:
        ValueError: num_steps is below 1.

    Reference: arXiv 2206.00364, eq. 5; theory.md eq. (20).
    """
    _check_num_steps(num_steps)
    first, last = sde.t_max ** (1 / rho), sde.t_min ** (1 / rho)
    return jnp.linspace(first, last, num_steps + 1) ** rho


def log_snr(sde: SDE, *, num_steps: Steps = 100) -> Float[Array, " points"]:
    """Return times evenly spaced in the log signal-to-noise ratio.

    On VE this is the uniform grid. On VP and sub-VP it has more steps at small noise levels than the uniform grid.

    Args:
        sde: diffusion.
        num_steps: number of steps from t_max to t_min, at least 1.

    Raises:
        ValueError: num_steps is below 1.

    Reference: arXiv 2206.00927, Section 3.3.
    """
    _check_num_steps(num_steps)
    return sde.time_at(jnp.linspace(1.0, 0.0, num_steps + 1))


GRIDS = {"ladder": ladder, "uniform": uniform, "karras": karras, "log_snr": log_snr}
