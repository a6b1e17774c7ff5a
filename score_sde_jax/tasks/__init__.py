"""What is asked of a trained network: images to be drawn, or numbers to be measured, in one file each."""

from score_sde_jax.tasks.classes import ClassConditional
from score_sde_jax.tasks.completion import Colorization, Completion, Inpainting, SuperResolution
from score_sde_jax.tasks.flow import Interpolation, Reconstruction
from score_sde_jax.tasks.task import UNCONDITIONAL, Networks, Task

__all__ = [
    "TASKS",
    "UNCONDITIONAL",
    "ClassConditional",
    "Colorization",
    "Completion",
    "Inpainting",
    "Interpolation",
    "Networks",
    "Reconstruction",
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
