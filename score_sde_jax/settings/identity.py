"""What makes a run the same run, images the same images, and a measurement the same measurement."""

from collections.abc import Mapping
from typing import Any

from score_sde_jax.settings.reading import flatten, plain
from score_sde_jax.settings.sections import EMA, Settings

RUN = ("data", "model", "sde", "parameterization")
"""Sections that make a trained network what it is; other values are another run."""
SEED = "seed"
"""Key of the seed: another value is another training run, but the same network for samples and measurements."""
CHANGEABLE = ("data.dir", "data.cache_bytes", "data.flip")
"""Keys of these sections that a run may change: where its images lie, how they are kept, and their augmentation."""
TRAINING = ("loss", "optimizer", "train", "parallel", "checkpoint", *CHANGEABLE)
"""What only training depends on. A run may change it, and is told so when it resumes."""
IMAGES_FREE = ("sampler.num_images", "sampler.batch_size", "sampler.num_frames")
"""Keys of section `sampler` that no image depends on."""
MEASUREMENT_FREE = ("loss", "bits_per_dim", "batch_size", "repeats", "split", "dir", "num_images")
"""Keys of section `eval` that no result of an image depends on, or that stand in what identifies the images."""


Difference = tuple[str, Any, Any]
"""Dotted path of a key, its value in the saved settings, and its value in the present ones."""


def another_run(settings: Settings, saved: Settings, *, training: bool = False) -> list[Difference]:
    """Return the differences that make the saved settings those of another run.

    Args:
        settings: Present settings.
        saved: Settings of the run in the workdir.
        training: Whether the run is to be resumed, so that another seed is another run too.
    """
    identity = (*RUN, SEED) if training else RUN
    return [each for each in _differences(settings, saved) if _section(each) in identity and each[0] not in CHANGEABLE]


def changed_training(settings: Settings, saved: Settings) -> list[Difference]:
    """Differences that a run which resumes goes on with."""
    return [each for each in _differences(settings, saved) if _section(each) in TRAINING or each[0] in TRAINING]


def images(settings: Settings, step: int, seed: int, task: Mapping[str, Any]) -> dict[str, Any]:
    """What image number i depends on, beside i: the checkpoint, the seed, the sampler, and the task if there is one."""
    sampler = plain(settings)["sampler"]
    kept = {key: value for key, value in sampler.items() if f"sampler.{key}" not in IMAGES_FREE and _told(key, value)}
    return {"checkpoint_step": step, "seed": seed, "sampler": kept} | ({"task": dict(task)} if task else {})


def measurement(settings: Settings, data: Mapping[str, Any], step: int, seed: int, num_images: int) -> dict[str, Any]:
    """What a measurement depends on; `data` is the section of the measured images, whose folder is that of `eval`."""
    sections = plain(settings)
    return {
        "checkpoint_step": step,
        "seed": seed,
        "num_images": num_images,
        "data": {key: value for key, value in data.items() if key != "dir"} | {"dir": settings.eval.dir},
        "loss": sections["loss"],
        "eval": {
            key: value for key, value in sections["eval"].items() if key not in MEASUREMENT_FREE and _told(key, value)
        },
    }


def _told(key: str, value: Any) -> bool:
    """Whether a value is part of a description: all but the average that older descriptions do not name."""
    return (key, value) != ("average", EMA)


def _section(difference: Difference) -> str:
    return difference[0].partition(".")[0]


def _differences(settings: Settings, saved: Settings) -> list[Difference]:
    here, there = flatten(plain(settings)), flatten(plain(saved))
    return [
        (path, there.get(path), here.get(path))
        for path in dict.fromkeys([*here, *there])
        if there.get(path) != here.get(path)
    ]
