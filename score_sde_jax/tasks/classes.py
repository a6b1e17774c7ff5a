"""Class-conditional sampling: by a network that knows labels, or by a classifier of noisy images."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Int, Num

from score_sde_jax.diffusion import guidance
from score_sde_jax.diffusion.guidance import Keys
from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.errors import UserError
from score_sde_jax.samplers import Sampler, Samples
from score_sde_jax.tasks.task import Given, Grid, Indices, Inputs, Networks, Points, Setup, Strips, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassConditional(Task):
    """Images of a class, by classifier-free guidance of a network that knows labels, or by classifier guidance.

    classifier: workdir of a run that has trained a classifier of noisy images; None for a network that knows labels.
    label: the class (None: image i is of class i mod num_classes); scale: of the guidance, 1 for the distribution given
    the class, 0 for that of all images.
    """

    classifier: str | None = None
    label: int | None = None
    scale: float = 1.0

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError for a guidance scale out of range."""
        del image_shape
        if not 0 <= self.scale < float("inf"):
            raise UserError(f"--config.task.scale={self.scale}: must be >= 0 and finite")

    def inputs(self, setup: Setup) -> "Labels":
        """The classes."""
        return Labels(self, setup)

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Points, given: Given) -> Samples:
        """Images of the classes given["label"]; a pure function."""
        noise_fn, calls = self._guided(networks, sampler.sde, given["label"])
        samples = sampler(noise_fn, keys, like)
        return samples._replace(nfe=calls * samples.nfe)

    def _guided(self, networks: Networks, sde: SDE, labels: Int[Array, " batch"]) -> tuple[NoiseFn, int]:
        """The guided noise prediction, and how often it calls the network."""
        if networks.log_probabilities is not None:
            return guidance.classifier_guidance(
                networks.noise_fn, sde, networks.log_probabilities, labels, self.scale
            ), 1
        assert networks.conditional is not None, "neither a classifier nor a network that knows labels"
        conditional = networks.conditional(labels)
        if self.scale in (0.0, 1.0):
            return conditional if self.scale else networks.noise_fn, 1
        return guidance.classifier_free_guidance(conditional, networks.noise_fn, self.scale), 2


class Labels(Inputs):
    """The class of each image: "label" (batch,), kept beside the images as `labels`."""

    def __init__(self, task: ClassConditional, setup: Setup) -> None:
        super().__init__(setup)
        self.label, self.num_classes = task.label, setup.num_classes
        if task.label is not None and not 0 <= task.label < setup.num_classes:
            raise UserError(f"--config.task.label={task.label}: the classes are 0 to {setup.num_classes - 1}")

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Arrays with one row for each of the images number `indices`."""
        if self.label is None:
            return {"label": (indices % self.num_classes).astype(np.int32)}
        return {"label": np.full(len(indices), self.label, np.int32)}

    def extras(self, indices: Indices, images: Num[np.ndarray, "batch ..."], key: Array) -> dict[str, np.ndarray]:
        """The classes as `labels`."""
        return {"labels": self(indices)["label"]}

    def pictures(self, stored: np.ndarray, extras: Mapping[str, np.ndarray]) -> dict[str, Grid | Strips]:
        """One column for each class."""
        if self.label is not None:
            return {}
        whole = len(stored) // self.num_classes * self.num_classes or len(stored)
        return {"classes.png": Grid(stored[:whole], columns=self.num_classes)}
