"""What is drawn: images of the data, or with something given (an image in part, a class, two images to go between).

A task is a pure function around a sampler; what is given to image number i is in a tree of arrays with one row for
every image of the batch. None copies a loop: they wrap the noise prediction, or go along the probability flow.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from score_sde_jax.diffusion.guidance import Keys
from score_sde_jax.diffusion.parameterization import LogProbabilities, NoiseFn
from score_sde_jax.errors import UserError
from score_sde_jax.samplers import Sampler, Samples

Given = Mapping[str, Array]
Numbers = Int[np.ndarray, " batch"]
Points = Float[Array, "batch *shape"]


class Networks(NamedTuple):
    """What is trained: the noise prediction and, where a task has one, a classifier of noisy images."""

    noise_fn: NoiseFn
    log_probabilities: LogProbabilities | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Images of the data, with nothing given but, where wanted, the latents to start from."""

    observations: ClassVar[int] = 0
    """How many observed images are given to each image: "observed" (batch, observations, height, width, channels)."""

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError where the task makes no sense for images of this shape."""
        if self.observations and len(image_shape) != 3:
            raise UserError(f"--config.task: only images can be observed, not points of shape {image_shape}")

    def sources(self, indices: Numbers) -> Int[np.ndarray, "batch observations"]:
        """Number of the images that are observed for images number `indices`."""
        return np.zeros((len(indices), 0), np.int64)

    def given(self, indices: Numbers) -> dict[str, np.ndarray]:
        """What else is given to images number `indices`."""
        del indices
        return {}

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Points, given: Given) -> Samples:
        """Images of the shape of `like`, one for each key; a pure function."""
        return sampler(networks.noise_fn, keys, like, start=given.get("latents"))


UNCONDITIONAL = Task()
