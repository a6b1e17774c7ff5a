"""A whole sampler: from the prior through every step, in one `lax.scan`, to the images."""

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
    """Images, frames of their way, and how often the network was evaluated for each (NFE)."""

    images: Images
    frames: Float[Array, "frames batch *shape"]
    nfe: Counts


def run(step: Step, times: Float[Array, " points"], keys: Keys, x: Images, *, num_frames: int = 0) -> Samples:
    """Apply `step` to every pair of consecutive times (t, s), in one scan.

    Returns the last x and num_frames images of the way, evenly spaced and ending with the last; no other one is kept.
    """
    num_steps = len(times) - 1

    def body(carry: tuple[Samples, PyTree], inputs: tuple[Array, Array, Array]) -> tuple[tuple[Samples, PyTree], None]:
        ((x, frames, evaluations), memory), (i, t, s) = carry, inputs
        x, more, memory = step.apply(prng.fold_in(keys, i), x, t, s, memory)
        if num_frames:  # every step overwrites its frame, so a frame ends as the last step that falls in it
            frames = jax.lax.dynamic_update_index_in_dim(frames, x, i * num_frames // num_steps, axis=0)
        return (Samples(x, frames, evaluations + more), memory), None

    # A frame that no step falls into (fewer steps than frames) would stay at the start: ask for no more than there are.
    num_frames = min(num_frames, num_steps)
    start = Samples(x, jnp.zeros((num_frames, *x.shape), x.dtype), jnp.zeros(len(x), jnp.int32))
    (samples, _), _ = jax.lax.scan(body, (start, step.memory(x)), (jnp.arange(num_steps), times[:-1], times[1:]))
    return samples


def denoise(sde: SDE, noise_fn: NoiseFn, x: Images, t: Float[Array, ""]) -> Images:
    """The final denoising step E[x_0 | x_t = x], eq. (5) (arXiv 2009.05475; arXiv 2006.09011)."""
    return sde.denoised(x, noise_fn(x, t), t)


def _gaussian(sde: SDE, keys: Keys, like: Images) -> Images:
    """N(0, sigma(t_max)^2), the prior of the SDE."""
    return sde.prior(keys, like)


def _uniform(sde: SDE, keys: Keys, like: Images) -> Images:
    """Uniform on [0, 1), where NCSN and NCSNv2 start."""
    del sde
    return prng.uniform(keys, like)


PRIORS: dict[str, Callable[[SDE, Keys, Images], Images]] = {"gaussian": _gaussian, "uniform": _uniform}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """A whole sampler: where it starts, the step, the times it visits, and whether it ends with the denoising step.

    `temperature` multiplies the prior's draw: below 1 images vary less (arXiv 2011.13456, Section 4.3).
    """

    sde: SDE
    prior: Callable[[SDE, Keys, Images], Images]
    step: Callable[[SDE, NoiseFn], Step]
    times: Float[Array, " points"]
    denoise: bool = True
    num_frames: int = 0
    temperature: float = 1.0

    def __call__(self, noise_fn: NoiseFn, keys: Keys, like: Images, initial_noise: Images | None = None) -> Samples:
        """Images of the shape and type of `like`, one for each key, and num_frames frames of their way.

        `initial_noise` holds the images at the first time, such as latents, instead of the prior's draw.
        """
        key_prior, key_run = prng.split(keys, 2)
        x = self.temperature * self.prior(self.sde, key_prior, like) if initial_noise is None else initial_noise
        x, frames, evaluations = run(self.step(self.sde, noise_fn), self.times, key_run, x, num_frames=self.num_frames)
        if self.denoise:
            x = denoise(self.sde, noise_fn, x, self.times[-1])
        return Samples(x, frames, evaluations + self.denoise)

    def nfe(self) -> int | None:
        """Network evaluations for every image (NFE), or None where the images decide."""
        step = self.step(self.sde, lambda x, t: x)  # counted by the step, whatever the network
        return None if step.nfe is None else (len(self.times) - 1) * step.nfe + self.denoise
