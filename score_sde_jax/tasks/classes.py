"""Class-conditional sampling by classifier-free guidance or classifier guidance."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Int, Num

from score_sde_jax.diffusion import guidance
from score_sde_jax.diffusion.guidance import Keys
from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.errors import UserError
from score_sde_jax.ranges import Natural, NonNegative
from score_sde_jax.samplers import Sampler, Samples
from score_sde_jax.tasks.task import Grid, Indices, InputArrays, Networks, Points, Strips, Task, TaskInputs, TaskSetup


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassConditional(Task):
    """Class-conditional sampling: classifier guidance, or classifier-free guidance of a network trained with labels.

    Attributes:
        classifier: workdir of a run that trained a classifier of noisy images; None for classifier-free guidance.
        label: class of all images, >= 0; None gives image i class i mod num_classes.
        scale: guidance scale, >= 0; 1 is the class-conditional distribution, 0 the unconditional one.

    Reference: theory.md eqs. (33) and (36); arXiv 2011.13456, Appendix I; arXiv 2207.12598.
    """

    classifier: str | None = None
    label: Natural | None = None
    scale: NonNegative = 1.0

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError if the guidance scale is out of range."""
        del image_shape
        if not 0 <= self.scale < float("inf"):
            raise UserError(f"--config.task.scale={self.scale}: must be >= 0 and finite")

    def inputs(self, setup: TaskSetup) -> "LabelInputs":
        """Return the labels of the images."""
        return LabelInputs(self, setup)

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Points, inputs: InputArrays) -> Samples:
        """Generate images of the classes inputs["label"]; a pure function, see `Task.sample`."""
        noise_fn, calls = self._guided(networks, sampler.sde, inputs["label"])
        samples = sampler(noise_fn, keys, like)
        return samples._replace(nfe=calls * samples.nfe)

    def _guided(self, networks: Networks, sde: SDE, labels: Int[Array, " batch"]) -> tuple[NoiseFn, int]:
        """Return the guided noise prediction, and its number of network evaluations."""
        if networks.log_probabilities is not None:
            return guidance.classifier_guidance(
                networks.noise_fn, sde, networks.log_probabilities, labels, self.scale
            ), 1
        assert networks.conditional is not None, "neither a classifier nor a network trained with labels"
        conditional = networks.conditional(labels)
        if self.scale in (0.0, 1.0):
            return conditional if self.scale else networks.noise_fn, 1
        return guidance.classifier_free_guidance(conditional, networks.noise_fn, self.scale), 2


class LabelInputs(TaskInputs):
    """Input "label" (batch,), the class of each image; saved as `labels`."""

    def __init__(self, task: ClassConditional, setup: TaskSetup) -> None:
        super().__init__(setup)
        self.label, self.num_classes = task.label, setup.num_classes
        if task.label is not None and not 0 <= task.label < setup.num_classes:
            raise UserError(
                f"--config.task.label={task.label}: must be >= 0 and < {setup.num_classes}, the number of classes"
            )

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Return the labels of the images with these indices."""
        if self.label is None:
            return {"label": (indices % self.num_classes).astype(np.int32)}
        return {"label": np.full(len(indices), self.label, np.int32)}

    def extras(self, indices: Indices, images: Num[np.ndarray, "batch ..."], key: Array) -> dict[str, np.ndarray]:
        """Return the classes as `labels`."""
        return {"labels": self(indices)["label"]}

    def pictures(self, stored: np.ndarray, extras: Mapping[str, np.ndarray]) -> dict[str, Grid | Strips]:
        """Return a grid with one column per class."""
        if self.label is not None:
            return {}
        in_full_rows = len(stored) // self.num_classes * self.num_classes or len(stored)
        return {"classes.png": Grid(stored[:in_full_rows], columns=self.num_classes)}
