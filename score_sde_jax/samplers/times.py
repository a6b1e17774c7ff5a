"""Time grids: decreasing times from t_max; a sampler steps between neighbours.

Each grid returns num_steps + 1 times, so `num_steps` counts steps and is independent of the number of training levels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from score_sde_jax.diffusion.sdes import SDE


def ladder(sde: SDE, *, num_levels: int = 10) -> Float[Array, " points"]:
    """The ladder of num_levels training times, eq. (8), the last one twice: a corrector acts once at every level."""
    if num_levels < 2:
        raise ValueError(f"num_levels={num_levels} must be at least 2")
    levels = jnp.linspace(sde.t_max, sde.t_min, num_levels)
    return jnp.append(levels, levels[-1])


def _require_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be at least 1")


def uniform(sde: SDE, *, num_steps: int = 1000, t_end: float | None = None) -> Float[Array, " points"]:
    """Evenly spaced from t_max to t_end (t_min of the SDE by default).

    Raises ValueError for fewer than 1 step, or a t_end outside t_min <= t_end < t_max.
    """
    _require_steps(num_steps)
    end = sde.t_min if t_end is None else t_end
    if not sde.t_min <= end < sde.t_max:
        raise ValueError(f"t_end={t_end} must be from t_min={sde.t_min} to below t_max={sde.t_max}")
    return jnp.linspace(sde.t_max, end, num_steps + 1)


def karras(sde: SDE, *, num_steps: int = 17, rho: float = 7.0) -> Float[Array, " points"]:
    """Evenly spaced in t^(1/rho) from t_max to t_min, eq. (20) (arXiv 2206.00364, eq. 5).

    The paper's N counts the last, denoising step to t = 0 as well: its 18 steps are num_steps = 17 and the denoising
    step. Raises ValueError for fewer than 1 step.
    """
    _require_steps(num_steps)
    first, last = sde.t_max ** (1 / rho), sde.t_min ** (1 / rho)
    return jnp.linspace(first, last, num_steps + 1) ** rho


def log_snr(sde: SDE, *, num_steps: int = 100) -> Float[Array, " points"]:
    """Evenly spaced in the logarithm of the signal-to-noise ratio from t_max to t_min (arXiv 2206.00927, Section 3.3).

    On VE this is `uniform`; on VP and sub-VP it gives small noise levels their share of the steps.
    Raises ValueError for fewer than 1 step.
    """
    _require_steps(num_steps)
    return sde.time_at(jnp.linspace(1.0, 0.0, num_steps + 1))


GRIDS = {"ladder": ladder, "uniform": uniform, "karras": karras, "log_snr": log_snr}
