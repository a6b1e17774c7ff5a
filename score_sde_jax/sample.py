"""The sampling driver: images from a checkpoint, numbered, continued, never overwritten."""

import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Literal

from ml_collections import ConfigDict

from score_sde_jax import build, drawing, workdir
from score_sde_jax import keys as prng
from score_sde_jax.checkpoint import Checkpoints
from score_sde_jax.drawing import Artist, SampleSet, Say
from score_sde_jax.errors import UserError
from score_sde_jax.processes import is_first
from score_sde_jax.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What the command line asks for; None stands for what the config says.

    checkpoint: its step, or "best" (the latest); seed; output: directory; files: one PNG for every image beside the
    archive; command: how to repeat it.
    """

    checkpoint: int | Literal["best"] | None = None
    seed: int | None = None
    output: Path | None = None
    files: bool = False
    command: str = ""


def sample(config: ConfigDict, directory: Path, request: SampleRequest, say: Say = print) -> Path:
    """Draw images until `sampler.num_images` are there, from the run in `directory`; the directory they lie in."""
    saved = workdir.saved_config(directory)
    if saved is None:
        raise _nothing_to_sample(directory)
    workdir.adopt_automatic(config, saved)
    workdir.refuse_another_run(directory, config, saved)
    parallel, options = build.parallel(config), build.sampler_options(config)
    experiment = build.experiment(config, tuple(saved[workdir.IMAGE_SHAPE]))
    artist = Artist(experiment, parallel, options.batch_size, config.data.value_range or (0.0, 1.0))

    step, state = _restore(directory, request.checkpoint, parallel.abstract(experiment.init, prng.root(0, "init")))
    say(f"sampling from the checkpoint of step {step:,} in {directory}")

    seed = config.seed if request.seed is None else request.seed
    samples = SampleSet(
        _output(config, directory, request, step, seed), drawing.description(config, step, seed), artist.are_images
    )
    had, began = len(samples), time.monotonic()
    evaluations = experiment.sampler.evaluations()
    facts = {"network_evaluations_per_image": evaluations, "command": request.command}
    drawing.extend(samples, artist, state.ema_params, seed, options.num_images, facts, say)
    if request.files and artist.are_images and is_first():
        samples.save_files()
    if len(samples) == had:
        say(f"{samples.directory} already holds {had:,} images; ask for more with --num_images")
    else:
        drawn, seconds = len(samples) - had, time.monotonic() - began
        say(
            f"drew images {had:,} to {len(samples) - 1:,} of seed {seed}: {evaluations:,} network evaluations each, "
            f"{drawn / seconds:.3g} images/s with compilation"
        )
    say(f"{samples.directory}: grid.png, {samples.archive.name}, annealing.gif\nrepeat: {request.command}")
    return samples.directory


def _restore(directory: Path, checkpoint: int | Literal["best"] | None, abstract: TrainState) -> tuple[int, TrainState]:
    """Step and state of the checkpoint that was asked for."""
    folder = directory / ("best" if checkpoint == "best" else "checkpoints")
    if not folder.is_dir():
        if checkpoint == "best":
            raise UserError(f"{directory} keeps no best checkpoint; train with --config.checkpoint.keep_best=True")
        raise _nothing_to_sample(directory)
    checkpoints = Checkpoints(folder)
    if isinstance(checkpoint, int):
        return checkpoint, checkpoints.restore(checkpoint, abstract)
    restored = checkpoints.restore_latest(abstract)
    if restored is None:
        raise _nothing_to_sample(directory)
    return restored


def _nothing_to_sample(directory: Path) -> UserError:
    return UserError(f"{directory} holds no checkpoint to sample from; train first, with --mode=train")


def _output(config: ConfigDict, directory: Path, request: SampleRequest, step: int, seed: int) -> Path:
    """Directory for a seed and sampler: samples/<step> for those of the run itself, a folder inside for any other."""
    if request.output is not None:
        return request.output
    base, ours = directory / "samples" / str(step), drawing.description(config, step, seed)
    record = base / "samples.json"
    if not record.exists() or json.loads(record.read_text())["description"] == json.loads(json.dumps(ours)):
        return base
    digest = hashlib.sha256(json.dumps(ours, sort_keys=True).encode()).hexdigest()[:8]
    return base / f"seed{seed}-{digest}"
