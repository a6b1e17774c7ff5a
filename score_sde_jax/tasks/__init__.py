"""Tasks generate images with a trained network; measures evaluate held-out images. Each has a file of its own."""

from collections.abc import Callable

from score_sde_jax.tasks.bits import bits_per_dim
from score_sde_jax.tasks.classes import ClassConditional
from score_sde_jax.tasks.completion import Colorization, Completion, Inpainting, SuperResolution
from score_sde_jax.tasks.flow import Interpolation, Reconstruction
from score_sde_jax.tasks.loss import held_out_loss
from score_sde_jax.tasks.task import UNCONDITIONAL, Measure, MeasureSetup, Networks, Task, TaskInputs, TaskSetup

__all__ = [
    "MEASURES",
    "TASKS",
    "UNCONDITIONAL",
    "ClassConditional",
    "Colorization",
    "Completion",
    "Inpainting",
    "Interpolation",
    "Measure",
    "MeasureSetup",
    "Networks",
    "Reconstruction",
    "SuperResolution",
    "Task",
    "TaskInputs",
    "TaskSetup",
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
"""Measures by the keys of section `eval` that switch them on; their keyword arguments are further keys of `eval`."""
