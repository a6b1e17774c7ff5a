"""Generation of numbered samples in batches; each call continues a set of samples and saves its pictures."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, PyTree
from PIL import Image

from score_sde_jax import keys as prng
from score_sde_jax.data.npz import shards
from score_sde_jax.devices import costs
from score_sde_jax.devices.machine import num_devices
from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.devices.processes import count, is_first, wait_for_all
from score_sde_jax.devices.signals import Stop, stopping
from score_sde_jax.errors import UserError
from score_sde_jax.runs import pictures, workdir
from score_sde_jax.runs.experiment import Experiment
from score_sde_jax.runs.numbered import NFE, RECORD, SHOWN, DamagedSetError, SampleSet, agrees, batches, read_record
from score_sde_jax.runs.records import quarantine
from score_sde_jax.runs.reporting import Say
from score_sde_jax.settings import Settings
from score_sde_jax.tasks import TaskInputs

GRID = "grid.png"
SHOWN_POINTS = 100_000
"""Points of a set that are shown in its pictures."""
SAVE_SECONDS = 30.0
"""Longest time between two saves of a set, in seconds."""


@contextlib.contextmanager
def open_set(
    base: Path, output: Path | None, description: Mapping[str, Any], shape: tuple[int, ...]
) -> Iterator[SampleSet]:
    """Lock the directory of a set of samples, and open the set.

    Corrupted files of a set are quarantined, unless the user gave the directory.

    Args:
        base: directory of the samples of a checkpoint: the first set without a task is in it, others in folders of it.
        output: directory that the user gave instead.
        description: what the samples depend on.
        shape: shape of an image or point.

    Raises:
        UserError: another process writes to the directory, it cannot be written, or it holds other samples.
    """
    while True:
        damage = None
        try:
            directory = output or _directory(base, description)
            SampleSet(directory, dict(description), shape)
        except DamagedSetError as error:
            damage = error
        wait_for_all("read the set")  # before process 0 renames what the others must find damaged too
        if damage is None:
            break
        if output is not None:
            raise UserError(f"--output={output}: {damage}; choose another") from damage
        _quarantine(damage)
    given = f"--output={output}" if output else str(directory)
    with workdir.claimed(directory, given) if is_first() else contextlib.nullcontext():
        samples = SampleSet(directory, dict(description), shape)
        wait_for_all("open the set")  # before process 0 writes to it
        if is_first():
            samples.begin()
        yield samples


def _directory(base: Path, description: Mapping[str, Any]) -> Path:
    """Return the directory of samples: `base` for the first description without a task, a folder in it for others."""
    task, there = description.get("task"), read_record(base)
    if not task and (there is None or agrees(there["description"], description)):
        return base
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]
    return base / (f"{task['name']}-{digest}" if task else f"seed{description['seed']}-{digest}")


def _quarantine(error: DamagedSetError) -> None:
    """Rename a corrupted file of a set. Without the record the shards have no description, so they are renamed too."""
    if is_first():
        if error.path.name == RECORD:
            for path in (path for key in ("images", "points") for path in shards(error.path.parent, key)):
                quarantine(path, f"has no description, since {RECORD} {error.reason}")
        if error.path.exists():
            quarantine(error.path, error.reason)
    wait_for_all("quarantine corrupted samples")


class SampleBatch(NamedTuple):
    """A batch of samples as they are stored.

    Attributes:
        images: samples.
        frames: intermediate samples.
        evaluations: NFE of each sample.
        extras: further arrays of the task, with a row for each sample.
        finite: whether each sample is finite.
    """

    images: np.ndarray
    frames: np.ndarray
    evaluations: np.ndarray
    extras: dict[str, np.ndarray]
    finite: np.ndarray


class BatchSampler:
    """Generator of sample number i of a seed, with one compiled sampler.

    Args:
        settings: settings of the run.
        experiment: objects of the run and its task.
        parallel: devices of the sampler.
        inputs: inputs of the task for each image; None for unconditional samples.
    """

    def __init__(
        self, settings: Settings, experiment: Experiment, parallel: Parallel, inputs: TaskInputs | None = None
    ) -> None:
        assert settings.sampler is not None
        self.experiment, self.inputs = experiment, inputs
        self.batch_size = settings.sampler.batch_size
        self.are_images = len(experiment.image_shape) == 3
        parallel.check_batch("--config.sampler.batch_size", self.batch_size)
        values = -(-self.batch_size // num_devices()) * math.prod(experiment.image_shape)
        costs.require_memory(
            4 * values * (2 + settings.sampler.num_frames),
            f"{self.batch_size:,} samples and their {settings.sampler.num_frames} frames need",
            "choose a smaller --config.sampler.batch_size or --config.sampler.num_frames",
        )
        self._sample = parallel.per_example(experiment.sample)

    def draw(self, params: PyTree, key: Array, first: int) -> SampleBatch:
        """Return samples number first to first + batch_size - 1."""
        indices = np.arange(first, first + self.batch_size)
        # With several processes, JAX refuses numpy arrays for arguments that are split over their devices.
        given = jax.tree.map(jnp.asarray, self.inputs(indices) if self.inputs else {})
        samples = self._sample(params, jnp.asarray(indices), key, given)
        images, frames, evaluations = map(np.asarray, samples)
        extras = self.inputs.extras(indices, images, key) if self.inputs else {}
        finite = np.isfinite(images).all(axis=tuple(range(1, images.ndim)))
        images, frames = (self.stored(np.nan_to_num(values)) for values in (images, frames))
        return SampleBatch(images, frames, evaluations, extras, finite)

    def stored(self, samples: np.ndarray) -> np.ndarray:
        """Return images as uint8, points unchanged."""
        return self.experiment.pixels.stored(samples) if self.are_images else samples

    def picture(self, stored: Num[np.ndarray, "num ..."]) -> Image.Image:
        """Return a grid of the first images, or a scatter plot of points."""
        return pictures.grid(stored[:SHOWN]) if self.are_images else pictures.points(stored)


def draw_set(
    samples: SampleSet,
    sampler: BatchSampler,
    params: PyTree,
    seed: int,
    num_images: int,
    metadata: Mapping[str, Any],
    say: Say,
) -> None:
    """Generate the missing samples of a set, and save shards, pictures and a GIF.

    Args:
        samples: the set.
        sampler: sampler of the run.
        params: parameters of the network.
        seed: seed of the images.
        num_images: number of images of the complete set.
        metadata: JSON values for the record of the set, to which the mean NFE per image is added.
        say: takes the log lines.

    Raises:
        UserError: a sample is not finite.
        StoppedError: a signal stopped the process after the samples were saved.
    """
    with stopping("saving the samples") as stop:
        stop.patient = count() == 1  # several processes would have to agree on the batch
        _draw_missing(samples, sampler, params, seed, num_images, metadata, say, stop)


def _draw_missing(
    samples: SampleSet,
    sampler: BatchSampler,
    params: PyTree,
    seed: int,
    num_images: int,
    metadata: Mapping[str, Any],
    say: Say,
    stop: Stop,
) -> None:
    """Generate the missing samples of a set, until it is complete or a signal stops the process."""
    num_saved, key = len(samples), prng.root(seed, "sample")
    gap = samples.gap(num_images)
    last_save, counted = time.monotonic(), samples.record["num_images"] if NFE in samples.record else 0
    evaluations = counted * samples.record.get(NFE, 0.0)
    if gap and (gap[0] < SHOWN or not sampler.are_images) and is_first():
        (samples.directory / GRID).unlink(missing_ok=True)  # new samples change the pictures
    for first, length in batches(samples, num_images, sampler.batch_size, say, "sample"):
        batch = sampler.draw(params, key, first)
        _require_finite(batch.finite[:length], first)
        samples.append(batch.images[:length], {name: rows[:length] for name, rows in batch.extras.items()})
        evaluations += float(batch.evaluations[:length].sum())
        counted += length  # a shard that was saved just before a kill is not counted
        metadata = {**metadata, NFE: round(evaluations / counted, 1)}
        if first == 0 and is_first():
            samples.directory.mkdir(parents=True, exist_ok=True)
            frames = [sampler.picture(frame[:length]) for frame in batch.frames]
            pictures.save_gif(samples.directory / "annealing.gif", [*frames, sampler.picture(batch.images[:length])])
        if not is_first():
            samples.forget()
        elif time.monotonic() - last_save > SAVE_SECONDS:
            samples.save(metadata)
            last_save = time.monotonic()
        if stop.received is not None:
            samples.save(metadata)
            raise stop.error(f"sample {len(samples) - 1:,}")
    if len(samples) > num_saved:
        say(f"NFE per image: {metadata[NFE]:,}")
    _save_pictures(samples, sampler, params, metadata, num_saved)


def _save_pictures(
    samples: SampleSet, sampler: BatchSampler, params: PyTree, metadata: Mapping[str, Any], num_saved: int
) -> None:
    """Save the set, then the pictures that are missing or that new samples change.

    The grid is written last. So after a kill it is missing, and the next call saves all pictures.
    """
    grid = samples.directory / GRID
    if len(samples) == num_saved and (not num_saved or (grid.exists() and samples.record["num_images"] == num_saved)):
        return
    score = None if sampler.are_images else _score(sampler, params)
    if not is_first():
        return
    samples.save(metadata)
    head = samples.head()
    if score is not None:
        field = pictures.score_field(samples.head(SHOWN_POINTS)[samples.key], *score)
        pictures.save_png(samples.directory / "score_field.png", field)
    if sampler.inputs and sampler.are_images:
        extras = {name: rows for name, rows in head.items() if name != samples.key}
        for name, picture in sampler.inputs.pictures(head[samples.key], extras).items():
            pictures.save_png(samples.directory / name, pictures.render(picture))
    if not grid.exists():
        shown = head[samples.key] if sampler.are_images else samples.head(SHOWN_POINTS)[samples.key]
        pictures.save_png(grid, sampler.picture(shown))


def _require_finite(finite: np.ndarray, first: int) -> None:
    """Raise UserError for samples that are not finite, as a failed solver leaves them."""
    if not finite.all():
        raise UserError(
            f"sample {first + int(np.argmin(finite))} is not finite: check the network, or raise max_evaluations, rtol "
            "and atol of an adaptive solver"
        )


def _score(sampler: BatchSampler, params: PyTree) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the points of a grid, the score at them, and its noise level, that of the middle time."""
    sde = sampler.experiment.sde
    t = jnp.asarray(0.5 * (sde.t_min + sde.t_max))
    axis = np.linspace(-2.8, 2.8, 24)
    at = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32)

    @jax.jit
    def score(params: PyTree) -> Array:
        return sde.score(sampler.experiment.noise_fn(params)(jnp.asarray(at), t), t)

    return at, np.asarray(score(params)), float(sde.sigma(t))
