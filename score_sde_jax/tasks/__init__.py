"""What is asked of a trained network: images to be drawn, or numbers to be measured, in one file each."""

from collections.abc import Callable

from score_sde_jax.tasks.bits import bits_per_dim
from score_sde_jax.tasks.classes import ClassConditional
from score_sde_jax.tasks.completion import Colorization, Completion, Inpainting, SuperResolution
from score_sde_jax.tasks.flow import Interpolation, Reconstruction
from score_sde_jax.tasks.loss import held_out_loss
from score_sde_jax.tasks.task import UNCONDITIONAL, Inputs, Measure, Measured, Networks, Setup, Task

__all__ = [
    "MEASURES",
    "TASKS",
    "UNCONDITIONAL",
    "ClassConditional",
    "Colorization",
    "Completion",
    "Inpainting",
    "Inputs",
    "Interpolation",
    "Measure",
    "Measured",
    "Networks",
    "Reconstruction",
    "Setup",
    "SuperResolution",
    "Task",
]

TASKS = {
    "none": Task,
    "inpainting": Inpainting,
    "colorization": Colorization,
    "super_resolution": SuperResolution,
    "class_conditional": ClassConditional,
    "interpolation": Interpolation,
    "reconstruction": Reconstruction,
}
MEASURES: dict[str, Callable[..., Measure]] = {"loss": held_out_loss, "bits_per_dim": bits_per_dim}
"""By the keys of section `eval` that ask for them; their keyword arguments are other keys of it."""
