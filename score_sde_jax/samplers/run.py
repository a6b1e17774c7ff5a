"""Samplers from the prior to the images: initial noise, one `lax.scan` over the steps, final denoising."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.samplers.step import Counts, Images, Keys, Step


class Samples(NamedTuple):
    """Result of a sampler.

    Attributes:
        images: final images.
        frames: intermediate samples, evenly spaced over the steps; the last one follows the last step.
        nfe: number of function evaluations (NFE), the network calls for each image.
    """

    images: Images
    frames: Float[Array, "frames batch *shape"]
    nfe: Counts


def run(step: Step, times: Float[Array, " points"], keys: Keys, x: Images, *, num_frames: int = 0) -> Samples:
    """Apply a step to every pair of consecutive times (t, s), in one scan.

    Args:
        step: sampler step.
        times: decreasing times.
        keys: one PRNG key per image.
        x: images at the first time.
        num_frames: number of intermediate samples, at most the number of steps; memory does not depend on the steps.
    """
    num_steps = len(times) - 1

    def body(carry: tuple[Samples, PyTree], inputs: tuple[Array, Array, Array]) -> tuple[tuple[Samples, PyTree], None]:
        ((x, frames, nfe), memory), (i, t, s) = carry, inputs
        x, step_nfe, memory = step.apply(prng.fold_in(keys, i), x, t, s, memory)
        if num_frames:  # Every step overwrites its frame, so a frame holds the last of its steps.
            frames = jax.lax.dynamic_update_index_in_dim(frames, x, i * num_frames // num_steps, axis=0)
        return (Samples(x, frames, nfe + step_nfe), memory), None

    # With fewer steps than frames, some frames would never be written.
    num_frames = min(num_frames, num_steps)
    start = Samples(x, jnp.zeros((num_frames, *x.shape), x.dtype), jnp.zeros(len(x), jnp.int32))
    (samples, _), _ = jax.lax.scan(body, (start, step.memory(x)), (jnp.arange(num_steps), times[:-1], times[1:]))
    return samples


def denoise(sde: SDE, noise_fn: NoiseFn, x: Images, t: Float[Array, ""]) -> Images:
    """Apply the final denoising step E[x_0 | x_t = x].

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        x: images at time t.
        t: last time of the sampler.

    Reference: arXiv 2009.05475; arXiv 2006.09011; theory.md eq. (5).
    """
    return sde.denoised(x, noise_fn(x, t), t)


def _gaussian(sde: SDE, keys: Keys, like: Images) -> Images:
    """Sample from N(0, sigma(t_max)^2 I), the prior of the SDE."""
    return sde.prior(keys, like)


def _uniform(sde: SDE, keys: Keys, like: Images) -> Images:
    """Sample uniformly from [0, 1), as NCSN and NCSNv2 do."""
    del sde
    return prng.uniform(keys, like)


PRIORS: dict[str, Callable[[SDE, Keys, Images], Images]] = {"gaussian": _gaussian, "uniform": _uniform}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Sampler from the prior to the images.

    Attributes:
        sde: diffusion.
        prior: initial noise (sde, keys, like) -> x, one of `PRIORS`.
        step: function (sde, noise_fn) -> `Step`.
        times: time grid, decreasing times.
        denoise: whether the last step is the denoising step E[x_0 | x_t = x], which is one more network evaluation.
        num_frames: number of intermediate samples to keep.
        temperature: factor of the initial noise; below 1 reduces the variance of the images.

    Reference: arXiv 2011.13456, Section 4.3, for the temperature.
    """

    sde: SDE
    prior: Callable[[SDE, Keys, Images], Images]
    step: Callable[[SDE, NoiseFn], Step]
    times: Float[Array, " points"]
    denoise: bool = True
    num_frames: int = 0
    temperature: float = 1.0

    def __call__(self, noise_fn: NoiseFn, keys: Keys, like: Images, initial_noise: Images | None = None) -> Samples:
        """Generate one image per key.

        Args:
            noise_fn: noise prediction (x, t) -> eps_hat.
            keys: one PRNG key per image.
            like: array of the shape and dtype of the images.
            initial_noise: x at the first time, such as latents; None samples it from the prior.
        """
        key_prior, key_run = prng.split(keys, 2)
        x = self.temperature * self.prior(self.sde, key_prior, like) if initial_noise is None else initial_noise
        x, frames, nfe = run(self.step(self.sde, noise_fn), self.times, key_run, x, num_frames=self.num_frames)
        if self.denoise:
            x = denoise(self.sde, noise_fn, x, self.times[-1])
        return Samples(x, frames, nfe + self.denoise)

    def nfe(self) -> int | None:
        """Return the number of function evaluations (NFE) per image; None if it differs between images."""
        step = self.step(self.sde, lambda x, t: x)  # The NFE of a step does not depend on the network.
        return None if step.nfe is None else (len(self.times) - 1) * step.nfe + self.denoise
