"""The sampling driver: images from a checkpoint, numbered, continued, never overwritten."""

import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any, Literal

from jaxtyping import PyTree
from ml_collections import ConfigDict

from score_sde_jax import keys as prng
from score_sde_jax.data import Dataset
from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build, drawing, workdir
from score_sde_jax.runs.drawing import Artist, SampleSet
from score_sde_jax.runs.given import Given, classifier
from score_sde_jax.runs.neighbours import check_number, leave_neighbours
from score_sde_jax.runs.reporting import Say
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


def sample(config: ConfigDict, directory: Path, request: SampleRequest, say: Say = print) -> Path:
    """Draw images until `sampler.num_images` are there, from the run in `directory`; the directory they lie in."""
    if "sampler" not in config:
        raise UserError("config.sampler is missing: --mode=sample draws with it, and a classifier draws nothing")
    image_shape = workdir.adopt_run(directory, config)
    training = None if request.neighbours is None else _training_images(config, request.neighbours, image_shape)
    parallel, options = build.parallel(config), build.sampler_options(config)
    value_range = config.data.value_range or (0.0, 1.0)
    experiment, given, more_params = _with_task(config, build.experiment(config, image_shape), parallel)
    artist = Artist(config, experiment, parallel, given)

    abstract = parallel.abstract(experiment.init, prng.root(0, "init"))
    step, state = workdir.restore(directory, request.checkpoint, abstract)
    params = (state.ema_params, *more_params) if more_params else state.ema_params
    say(f"sampling from the checkpoint of step {step:,} in {directory}")

    seed = config.seed if request.seed is None else request.seed
    described = drawing.description(config, step, seed, given.description)
    output = request.output or _output(directory / "samples" / str(step), described)
    samples = SampleSet(output, described, artist.are_images)
    had, began = len(samples), time.monotonic()
    facts = {"command": request.command}
    drawing.extend(samples, artist, params, seed, options.num_images, facts, say)
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


def _training_images(config: ConfigDict, num_neighbours: int, image_shape: tuple[int, ...]) -> Dataset:
    """The images among which neighbours are found; UserError where there are not so many, before anything is drawn."""
    if len(image_shape) != 3:
        raise UserError(f"--neighbours={num_neighbours}: only images have them, not points of shape {image_shape}")
    data = build.dataset(config)
    check_number(num_neighbours, data)
    return data


def _with_task(
    config: ConfigDict, experiment: build.Experiment, parallel: Parallel
) -> tuple[build.Experiment, Given, list[PyTree]]:
    """The experiment for section `task`, what is given to its images, and the parameters that it has in addition."""
    task = build.task(config, experiment.image_shape)
    found = None
    if isinstance(task, ClassConditional):
        found = classifier(config, workdir.locate(task.classifier, "config.task.classifier"), experiment, parallel)
    given = Given(config, task, experiment, found)
    experiment = dataclasses.replace(experiment, task=task, classifier=found.experiment if found else None)
    return experiment, given, [found.params] if found else []


def _output(base: Path, described: dict[str, Any]) -> Path:
    """Directory for a task, seed and sampler: `base` for those of the run itself, a folder inside for any other."""
    record, task = base / "samples.json", described.get("task")
    if not task and (
        not record.exists() or json.loads(record.read_text())["description"] == json.loads(json.dumps(described))
    ):
        return base
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]
    return base / (f"{task['name']}-{digest}" if task else f"seed{described['seed']}-{digest}")
