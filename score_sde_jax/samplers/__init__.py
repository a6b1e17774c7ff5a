"""Samplers: a step is step(keys, x, t, s) -> x, and one `lax.scan` runs them all.

`keys` holds one PRNG key for every image, so image number i depends on (seed, i) alone. Predictors (`predictors.py`)
move from
time t to time s < t; correctors (`correctors.py`) move at time t; `chain` composes them; time grids are in `times.py`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from score_sde_jax import keys as prng
from score_sde_jax.parameterization import NoiseFn
from score_sde_jax.samplers.correctors import CORRECTORS
from score_sde_jax.samplers.layers import Step
from score_sde_jax.samplers.predictors import PREDICTORS
from score_sde_jax.samplers.times import GRIDS
from score_sde_jax.sdes import SDE

__all__ = ["CORRECTORS", "GRIDS", "PREDICTORS", "PRIORS", "Sampler", "Step", "chain", "denoise", "run"]

Images = Float[Array, "batch *shape"]


def chain(*steps: Step) -> Step:
    """One step made of several, each with keys of its own; a corrector and a predictor make predictor-corrector."""

    def move(keys: Key[Array, " batch"], x: Images, t: Float[Array, ""], s: Float[Array, ""]) -> Images:
        for step_keys, step in zip(prng.split(keys, len(steps)), steps, strict=True):
            x = step(step_keys, x, t, s)
        return x

    return Step(move, evaluations=sum(step.evaluations for step in steps))


def run(
    step: Step, times: Float[Array, " points"], keys: Key[Array, " batch"], x: Images, *, num_frames: int = 0
) -> tuple[Images, Float[Array, "frames batch *shape"]]:
    """Apply `step` to every pair of consecutive times (t, s), in one scan.

    Returns the last x and num_frames images of the way, evenly spaced and ending with the last; no other one is kept.
    """
    num_steps = len(times) - 1

    def body(carry: tuple[Images, Array], inputs: tuple[Array, Array, Array]) -> tuple[tuple[Images, Array], None]:
        (x, frames), (i, t, s) = carry, inputs
        x = step(prng.fold_in(keys, i), x, t, s)
        if num_frames:  # every step overwrites its frame, so a frame ends as the last step that falls in it
            frames = jax.lax.dynamic_update_index_in_dim(frames, x, i * num_frames // num_steps, axis=0)
        return (x, frames), None

    # A frame that no step falls into (fewer steps than frames) would stay at the start: ask for no more than there are.
    num_frames = min(num_frames, num_steps)
    frames = jnp.zeros((num_frames, *x.shape), x.dtype)
    (x, frames), _ = jax.lax.scan(body, (x, frames), (jnp.arange(num_steps), times[:-1], times[1:]))
    return x, frames


def denoise(sde: SDE, noise_fn: NoiseFn, x: Images, t: Float[Array, ""]) -> Images:
    """The final denoising step E[x_0 | x_t = x], eq. (5) (arXiv 2009.05475; arXiv 2006.09011)."""
    return sde.denoised(x, noise_fn(x, t), t)


def _gaussian(sde: SDE, keys: Key[Array, " batch"], like: Images) -> Images:
    """N(0, sigma(t_max)^2), the prior of the SDE."""
    return sde.prior(keys, like)


def _uniform(sde: SDE, keys: Key[Array, " batch"], like: Images) -> Images:
    """Uniform on [0, 1), where NCSN and NCSNv2 start."""
    del sde
    return prng.uniform(keys, like)


PRIORS: dict[str, Callable[[SDE, Key[Array, " batch"], Images], Images]] = {"gaussian": _gaussian, "uniform": _uniform}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """A whole sampler: where it starts, the step, the times it visits, and whether it ends with the denoising step."""

    sde: SDE
    prior: Callable[[SDE, Key[Array, " batch"], Images], Images]
    step: Callable[[SDE, NoiseFn], Step]
    times: Float[Array, " points"]
    denoise: bool = True
    num_frames: int = 0

    def __call__(
        self, noise_fn: NoiseFn, keys: Key[Array, " batch"], like: Images
    ) -> tuple[Images, Float[Array, "frames batch *shape"]]:
        """Images of the shape and type of `like`, one for each key, and num_frames frames of their way."""
        key_prior, key_run = prng.split(keys, 2)
        x = self.prior(self.sde, key_prior, like)
        x, frames = run(self.step(self.sde, noise_fn), self.times, key_run, x, num_frames=self.num_frames)
        if self.denoise:
            x = denoise(self.sde, noise_fn, x, self.times[-1])
        return x, frames

    def evaluations(self) -> int:
        """Network evaluations per image (NFE)."""
        step = self.step(self.sde, lambda x, t: x)  # counted by the step, whatever the network
        return (len(self.times) - 1) * step.evaluations + self.denoise
