"""The sampling driver: images from a checkpoint, numbered, continued, never overwritten."""

import dataclasses
import time
from pathlib import Path
from typing import Literal

from jaxtyping import PyTree

from score_sde_jax.data import Dataset
from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build, drawing, workdir
from score_sde_jax.runs.drawing import Artist, SampleSet
from score_sde_jax.runs.experiment import Experiment, abstract_averages
from score_sde_jax.runs.given import Given, classifier
from score_sde_jax.runs.neighbours import check_number, leave_neighbours
from score_sde_jax.runs.reporting import Say
from score_sde_jax.settings import Settings, identity
from score_sde_jax.tasks import ClassConditional

LEFT = (".png", ".gif", ".npz")
"""Files that are named when all is drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What the command line asks for; None stands for what the config says.

    checkpoint: its step, or "best" (the latest); seed; output: directory; files: one PNG for every image beside the
    archive; neighbours: how many nearest training images are found for each; command: how to repeat it.
    """

    checkpoint: int | Literal["best"] | None = None
    seed: int | None = None
    output: Path | None = None
    files: bool = False
    neighbours: int | None = None
    command: str = ""


def sample(settings: Settings, directory: Path, request: SampleRequest, say: Say = print) -> Path:
    """Draw images until `sampler.num_images` are there, from the run in `directory`; the directory they lie in."""
    section = settings.sampler
    if section is None:
        raise UserError("--config.sampler is missing: --mode=sample draws with it, and a classifier draws nothing")
    settings, image_shape = workdir.adopt_run(directory, settings)
    training = None if request.neighbours is None else _training_images(settings, request.neighbours, image_shape)
    parallel = settings.parallel()
    value_range = settings.data.value_range or (0.0, 1.0)
    experiment, given, more_params = _with_task(settings, build.experiment(settings, image_shape), parallel)
    artist = Artist(settings, experiment, parallel, given)
    step, averages = workdir.restore(directory, request.checkpoint, abstract_averages(experiment, parallel))
    params = (averages["ema_params"], *more_params) if more_params else averages["ema_params"]
    say(f"sampling from the checkpoint of step {step:,} in {directory}")

    seed = settings.seed if request.seed is None else request.seed
    description = identity.images(settings, step, seed, given.description)
    output = request.output or drawing.directory(directory / "samples" / str(step), description)
    samples = SampleSet(output, description, artist.are_images)
    had, began = len(samples), time.monotonic()
    facts = {"command": request.command}
    drawing.extend(samples, artist, params, seed, section.num_images, facts, say)
    if request.files and artist.are_images and is_first():
        samples.save_files()
    if len(samples) == had:
        say(f"{samples.directory} already holds {had:,} images; ask for more with --num_images")
    else:
        drawn, seconds = len(samples) - had, time.monotonic() - began
        say(
            f"drew images {had:,} to {len(samples) - 1:,} of seed {seed}, "
            f"{drawn / seconds:.3g} images/s with compilation"
        )
    if "errors" in samples.beside:
        say(f"mean absolute error of the round trip: {samples.beside['errors'].mean():.3g} of 255 grey levels")
    if training is not None:
        assert samples.stored is not None and request.neighbours is not None
        leave_neighbours(samples.directory, samples.stored, training, value_range, request.neighbours, say)
    named = ", ".join(sorted(path.name for path in samples.directory.iterdir() if path.suffix in LEFT))
    say(f"{samples.directory}: {named}\nrepeat: {request.command}")
    return samples.directory


def _training_images(settings: Settings, num_neighbours: int, image_shape: tuple[int, ...]) -> Dataset:
    """The images among which neighbours are found; UserError where there are not so many, before anything is drawn."""
    if len(image_shape) != 3:
        raise UserError(f"--neighbours={num_neighbours}: only images have them, not points of shape {image_shape}")
    data = build.dataset(settings)
    check_number(num_neighbours, data)
    return data


def _with_task(
    settings: Settings, experiment: Experiment, parallel: Parallel
) -> tuple[Experiment, Given, list[PyTree]]:
    """The experiment for section `task`, what is given to its images, and the parameters that it has in addition."""
    task = build.task(settings, experiment.image_shape)
    trained = None
    if isinstance(task, ClassConditional):
        folder = workdir.locate(task.classifier, "--config.task.classifier")
        trained = classifier(settings, folder, experiment, parallel)
    given = Given(settings, task, experiment, trained)
    experiment = dataclasses.replace(experiment, task=task, classifier=trained.experiment if trained else None)
    return experiment, given, [trained.params] if trained else []
