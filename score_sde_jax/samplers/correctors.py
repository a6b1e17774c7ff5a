"""Correctors: Langevin dynamics at one time t, which leaves p_t invariant up to the step size. Equations:
docs/theory.md.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.samplers.step import Images, Keys, Scalar, Step

# (score, noise, sigma) -> step size, a scalar or one for every image as (batch, 1, ..., 1)
StepSize = Callable[[Images, Images, Scalar], Float[Array, "..."]]


def langevin_dynamics(
    sde: SDE, noise_fn: NoiseFn, step_size: StepSize, num_steps: int, *, shrink: bool = False
) -> Step:
    """`num_steps` Langevin steps x <- x + size s(x) + sqrt(2 size) z at one time, eq. (9).

    NCSNv2 and the released code of NCSN write it so; the formula of arXiv 1907.05600, eq. 4, has size = eps / 2.
    `shrink` multiplies the size by the square of the scale of the forward step from s to t, eq. (25).
    Raises ValueError for fewer than 1 step.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be at least 1")

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        factor = (sde.alpha(t) / sde.alpha(s)) ** 2 if shrink else 1.0

        def body(x: Images, i: Array) -> tuple[Images, None]:
            score = sde.score(noise_fn(x, t), t)
            z = prng.normal(prng.fold_in(keys, i), x)
            size = factor * step_size(score, z, sde.sigma(t))
            return x + size * score + jnp.sqrt(2 * size) * z, None  # eq. (9)

        return jax.lax.scan(body, x, jnp.arange(num_steps))[0]

    return Step(move, nfe=num_steps)


def annealed_langevin(
    sde: SDE, noise_fn: NoiseFn, *, step_size: float = 0.2, num_steps: int = 100, shrink: bool = False
) -> Step:
    """Langevin steps of size step_size sigma(t)^2, annealed with the noise level, eq. (9) (arXiv 1907.05600, Algorithm
    1).

    `step_size` is the papers' step_lr / sigma_L^2 (NCSN 2e-5 / 0.01^2 = 0.2, NCSNv2 on CIFAR-10 6.2e-6 / 0.01^2 =
    0.062), a pure number below 2, for any SDE; score-SDE's `ald` corrector writes it 2 snr^2, with `shrink` on VP.
    """
    if not 0 < step_size < 2:
        raise ValueError(f"step_size={step_size} is in units of sigma^2 and must lie between 0 and 2")
    return langevin_dynamics(sde, noise_fn, lambda score, z, sigma: step_size * sigma**2, num_steps, shrink=shrink)


def langevin(
    sde: SDE,
    noise_fn: NoiseFn,
    *,
    snr: float = 0.16,
    num_steps: int = 1,
    norms: Literal["image", "batch"] = "image",
    shrink: bool = False,
) -> Step:
    """Langevin steps of size 2 (snr |z| / |score|)^2, eq. (19) (arXiv 2011.13456, Algorithm 4).

    The lengths are every image's own, or with `norms` = "batch" their means over the batch, as published; an image then
    depends on its batch, and where each device runs the sampler (`Pmap`) on that of its device. score-SDE's code has
    `shrink` on VP.
    """
    if not snr > 0:
        raise ValueError(f"snr={snr} must be above 0")
    if norms not in ("image", "batch"):
        raise ValueError(f"norms={norms!r}: allowed are 'image' and 'batch'")

    def step_size(score: Images, z: Images, sigma: Scalar) -> Float[Array, "..."]:
        del sigma

        def norm(x: Images) -> Float[Array, "..."]:
            lengths = jnp.sqrt(jnp.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))
            return lengths if norms == "image" else jnp.mean(lengths)

        return 2 * (snr * norm(z) / norm(score)) ** 2

    return langevin_dynamics(sde, noise_fn, step_size, num_steps, shrink=shrink)


def none(sde: SDE, noise_fn: NoiseFn) -> Step:
    """No corrector."""
    del sde, noise_fn
    return Step(lambda keys, x, t, s: x, nfe=0)


CORRECTORS = {"annealed_langevin": annealed_langevin, "langevin": langevin, "none": none}
