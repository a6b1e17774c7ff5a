"""The task that is given a class."""

import dataclasses

import numpy as np
from jaxtyping import Int

from score_sde_jax.diffusion import guidance
from score_sde_jax.diffusion.guidance import Keys
from score_sde_jax.errors import UserError
from score_sde_jax.samplers import Sampler, Samples
from score_sde_jax.tasks.task import Given, Networks, Numbers, Points, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassConditional(Task):
    """A class is given, by a classifier of noisy images that a run of its own has trained.

    classifier: workdir of that run; label: the class (None: image i is of class i mod num_classes); scale: of the
    guidance, 1 for the distribution given the class.
    """

    classifier: str
    label: int | None = None
    scale: float = 1.0

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError for a scale that is no number of use."""
        del image_shape
        if not 0 <= self.scale < float("inf"):
            raise UserError(f"--config.task.scale={self.scale}: 0 or above")

    def labels(self, indices: Numbers, num_classes: int) -> Int[np.ndarray, " batch"]:
        """Class of images number `indices`; UserError for a label that is none."""
        if self.label is None:
            return (indices % num_classes).astype(np.int32)
        if not 0 <= self.label < num_classes:
            raise UserError(f"--config.task.label={self.label}: the classes are 0 to {num_classes - 1}")
        return np.full(len(indices), self.label, np.int32)

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Points, given: Given) -> Samples:
        """Images of the classes given["label"]; a pure function."""
        assert networks.log_probabilities is not None, "no classifier"
        noise_fn = guidance.guided(
            networks.noise_fn, sampler.sde, networks.log_probabilities, given["label"], self.scale
        )
        return sampler(noise_fn, keys, like)
