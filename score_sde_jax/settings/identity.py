"""Settings that identify a run, a set of samples, and a measurement."""

from collections.abc import Mapping
from typing import Any

from score_sde_jax.settings.reading import flatten, plain
from score_sde_jax.settings.sections import EMA, Settings

RUN = ("data", "model", "sde", "parameterization")
"""Sections that identify a run: a workdir with other values holds another run."""
SEED = "seed"
"""Key of the seed: another value identifies another training run; samples and measurements may use any seed."""
CHANGEABLE = ("data.dir", "data.cache_bytes", "data.max_unreadable", "data.flip")
"""Keys of these sections that may change when a run resumes."""
TRAINING = ("loss", "optimizer", "train", "parallel", "checkpoint", *CHANGEABLE)
"""Sections and keys that only training depends on. They may change when a run resumes, which prints the changes."""
NOT_OF_IMAGES = ("sampler.num_images", "sampler.batch_size", "sampler.num_frames")
"""Keys of section `sampler` that no image depends on."""
NOT_OF_MEASUREMENTS = ("loss", "bits_per_dim", "batch_size", "repeats", "split", "dir", "num_images")
"""Keys of section `eval` that no row of a measurement depends on, or that the identity of the images contains."""


Difference = tuple[str, Any, Any]
"""Dotted path of a key, its value in the saved settings, and its value in the new ones."""


def another_run(settings: Settings, saved: Settings, *, training: bool = False) -> list[Difference]:
    """Return the differences that identify another run.

    Args:
        settings: new settings.
        saved: settings of the workdir.
        training: whether the run is resumed, so that another seed identifies another run too.
    """
    identity = (*RUN, SEED) if training else RUN
    return [each for each in _differences(settings, saved) if _section(each) in identity and each[0] not in CHANGEABLE]


def changed_training(settings: Settings, saved: Settings) -> list[Difference]:
    """Return the differences that a resumed run accepts.

    Args:
        settings: new settings.
        saved: settings of the workdir.
    """
    return [each for each in _differences(settings, saved) if _section(each) in TRAINING or each[0] in TRAINING]


def images(settings: Settings, step: int, parameters: str, seed: int, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings and values that image i depends on, other than i.

    Args:
        settings: settings of the run.
        step: step of the checkpoint.
        parameters: fingerprint of the parameters that sample.
        seed: seed of the samples.
        task: description of the task; empty for unconditional sampling.
    """
    sampler = {
        key: value
        for key, value in plain(settings)["sampler"].items()
        if f"sampler.{key}" not in NOT_OF_IMAGES and _identifies(key, value)
    }
    about = {"checkpoint_step": step, "parameters": parameters, "seed": seed, "sampler": sampler}
    return about | ({"task": dict(task)} if task else {})


def measurement(
    settings: Settings, data: Mapping[str, Any], step: int, parameters: str, seed: int, num_images: int
) -> dict[str, Any]:
    """Return the settings and values that a measurement depends on.

    Args:
        settings: settings of the run.
        data: section `data` of the measured images; their directory is that of section `eval`.
        step: step of the checkpoint.
        parameters: fingerprint of the measured parameters.
        seed: seed of the measurement.
        num_images: number of measured images.
    """
    sections = plain(settings)
    return {
        "checkpoint_step": step,
        "parameters": parameters,
        "seed": seed,
        "num_images": num_images,
        "data": {key: value for key, value in data.items() if key != "dir"} | {"dir": settings.eval.dir},
        "loss": sections["loss"],
        "eval": {
            key: value
            for key, value in sections["eval"].items()
            if key not in NOT_OF_MEASUREMENTS and _identifies(key, value)
        },
    }


def _identifies(key: str, value: Any) -> bool:
    """Return whether a value is part of an identity; defaults that older versions do not have are not."""
    return (key, value) not in (("average", EMA), ("precision", "default"))


def _section(difference: Difference) -> str:
    return difference[0].partition(".")[0]


def _differences(settings: Settings, saved: Settings) -> list[Difference]:
    new, old = flatten(plain(settings)), flatten(plain(saved))
    return [
        (path, old.get(path), new.get(path)) for path in dict.fromkeys([*new, *old]) if old.get(path) != new.get(path)
    ]
