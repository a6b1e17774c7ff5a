"""The sampling driver: a numbered set of images generated from a checkpoint, which later calls continue."""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

from jaxtyping import PyTree

from score_sde_jax.data import Dataset
from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import batch_sampler, build, workdir
from score_sde_jax.runs.batch_sampler import BatchSampler
from score_sde_jax.runs.checkpoint import fingerprint
from score_sde_jax.runs.experiment import Experiment, abstract_average, average_of
from score_sde_jax.runs.neighbors import check_number, save_neighbors
from score_sde_jax.runs.numbered import SampleSet
from score_sde_jax.runs.reporting import Say
from score_sde_jax.settings import Settings, flatten, from_saved, identity, plain, with_values
from score_sde_jax.settings.sections import EMA
from score_sde_jax.tasks import TaskInputs, TaskSetup

PICTURES_AND_ARCHIVES = (".png", ".gif", ".npz")
"""Suffixes of the files that the last log line lists."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """Options of the command line; None stands for the value of the settings.

    Attributes:
        checkpoint: step of the checkpoint, or "best"; None for the latest.
        seed: seed of the images.
        output: directory of the images.
        files: whether each image also becomes a PNG file.
        neighbors: number of nearest training images per image; None for no search.
        command: command that repeats the call, for the record.
    """

    checkpoint: int | Literal["best"] | None = None
    seed: int | None = None
    output: Path | None = None
    files: bool = False
    neighbors: int | None = None
    command: str = ""


def sample(settings: Settings, directory: Path, request: SampleRequest, say: Say = print) -> Path:
    """Generate `sampler.num_images` images with a trained run, or the missing ones of an existing set.

    Args:
        settings: settings of the run.
        directory: workdir of the run.
        request: options of the command line.
        say: takes the log lines.

    Returns:
        Directory of the set.

    Raises:
        UserError: the run, its checkpoint or the task does not fit the settings, or a sample is not finite.
    """
    section = settings.sampler
    if section is None:
        raise UserError("--config.sampler is missing: --mode=sample needs it; a classifier generates no images")
    settings, image_shape = workdir.adopt_run(directory, settings)
    training = None if request.neighbors is None else _training_images(settings, request.neighbors, image_shape)
    parallel = settings.parallel()
    experiment, inputs, more_params = _with_task(settings, build.experiment(settings, image_shape), parallel)
    sampler = BatchSampler(settings, experiment, parallel, inputs)
    abstract = abstract_average(experiment, parallel, section.average)
    step, state = workdir.restore(directory, request.checkpoint, abstract)
    average = average_of(state, section.average)
    params = (average, *more_params) if more_params else average
    for line in [*(training.lines() if training else []), *inputs.about()]:
        say(line)
    say(f"Sampling from step {step:,} of {directory}")

    seed = settings.seed if request.seed is None else request.seed
    description = identity.images(settings, step, fingerprint(average), seed, inputs.description)
    base = directory / "samples" / str(step)
    with batch_sampler.open_set(base, request.output, description, experiment.image_shape) as samples:
        num_saved, missing, began = len(samples), samples.gaps(section.num_images), time.monotonic()
        batch_sampler.draw_set(samples, sampler, params, seed, section.num_images, {"command": request.command}, say)
        if request.files and sampler.are_images and is_first():
            samples.save_files()
        if len(samples) == num_saved:
            say(f"{samples.directory} already holds {num_saved:,} images; --num_images=N generates more")
        else:
            speed = (len(samples) - num_saved) / (time.monotonic() - began)
            numbers = ", ".join(f"{first:,} to {stop - 1:,}" for first, stop in missing)
            say(f"Generated images {numbers} of seed {seed}: images_per_second={speed:.3g} (with compilation)")
        if is_first():
            _report_files(samples, experiment, inputs, training, request, say)
        return samples.directory


def _report_files(
    samples: SampleSet,
    experiment: Experiment,
    inputs: TaskInputs,
    training: Dataset | None,
    request: SampleRequest,
    say: Say,
) -> None:
    """Report the summary of the task and the files of the set, and save the nearest training images."""
    numbers = {name for name, rows in samples.head(1).items() if rows.ndim == 1}
    for line in inputs.lines({name: samples.column(name) for name in numbers}):
        say(line)
    if training is not None:
        assert request.neighbors is not None
        save_neighbors(samples, training, experiment.pixels, request.neighbors, say)
    named = ", ".join(sorted(path.name for path in samples.directory.iterdir() if path.suffix in PICTURES_AND_ARCHIVES))
    say(f"Saved samples: {samples.directory} ({named})\nrepeat: {request.command}")


def _training_images(settings: Settings, num_neighbors: int, image_shape: tuple[int, ...]) -> Dataset:
    """Return the training images of a neighbor search; UserError if there are too few."""
    if len(image_shape) != 3:
        raise UserError(f"--neighbors={num_neighbors}: only images have them, not points of shape {image_shape}")
    data = build.dataset(settings)
    check_number(num_neighbors, data)
    return data


def _with_task(
    settings: Settings, experiment: Experiment, parallel: Parallel
) -> tuple[Experiment, TaskInputs, list[PyTree]]:
    """Return the experiment for section `task`, the inputs of the task, and the parameters of a classifier."""
    task = build.task(settings, experiment.image_shape)
    classifier, params, more, num_classes = None, [], dict[str, Any](), experiment.num_classes
    if folder := settings.task.get("classifier"):
        directory = workdir.locate(folder, "--config.task.classifier")
        classifier, classifier_params, step, num_classes = _classifier(settings, directory, experiment, parallel)
        params = [classifier_params]
        more = {"classifier_step": step, "classifier_parameters": fingerprint(classifier_params)}
    setup = TaskSetup(
        image_shape=experiment.image_shape,
        pixels=experiment.pixels,
        sde=experiment.sde,
        held_out=lambda: build.dataset(_held_out(settings)),
        about_held_out={"data": settings.data.name, "split": _held_out(settings).data.get("split")},
        num_classes=num_classes,
        description={} if settings.task.name == "none" else plain(settings)["task"] | more,
    )
    return dataclasses.replace(experiment, task=task, classifier=classifier), task.inputs(setup), params


def _held_out(settings: Settings) -> Settings:
    """Return settings of the test split of the run's data, or of the data if they have no splits."""
    return settings if settings.data.get("split") is None else with_values(settings, {"data.split": "test"})


def _classifier(
    settings: Settings, directory: Path, experiment: Experiment, parallel: Parallel
) -> tuple[Experiment, PyTree, int, int]:
    """Return experiment, parameters, step and number of classes of the classifier that was trained in `directory`.

    Raises:
        UserError: the classifier does not fit the run of these settings.
    """
    key = f"--config.task.classifier={directory}"
    saved = workdir.saved_config(directory)
    if saved is None:
        raise UserError(f"{key}: no run there; train one, such as --config=configs/digits_classifier.py")
    trained = from_saved(saved)
    if trained.loss.name != "classification":
        raise UserError(f"{key}: not a classifier, but a run of loss.name={trained.loss.name}")
    shape = tuple(saved[workdir.IMAGE_SHAPE])
    if shape != experiment.image_shape:
        raise UserError(f"{key}: for images of shape {shape}, not {experiment.image_shape}")
    classifier = build.experiment(trained, shape)
    if classifier.pixels.ends != experiment.pixels.ends:
        raise UserError(f"{key}: for images of data.value_range={classifier.pixels.ends}, not {experiment.pixels.ends}")
    sde, run_sde = (flatten(plain(each)["sde"], "sde") for each in (trained, settings))
    for path in [*run_sde, *sde]:
        if sde.get(path) != run_sde.get(path):
            raise UserError(f"{key}: trained on other noise, with {path}={sde.get(path)}, not {run_sde.get(path)}")
    step, state = workdir.restore(directory, None, abstract_average(classifier, parallel, EMA))
    return classifier, average_of(state, EMA), step, trained.model.num_classes
