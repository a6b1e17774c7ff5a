"""Draw numbered images in batches and leave them in a directory, going on where an earlier call stopped."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, PyTree
from ml_collections import ConfigDict
from PIL import Image

from score_sde_jax import keys as prng
from score_sde_jax import pictures
from score_sde_jax.build import Experiment
from score_sde_jax.config import to_json
from score_sde_jax.errors import UserError
from score_sde_jax.processes import is_first
from score_sde_jax.reporting import Progress, write_atomically
from score_sde_jax.sharding import Parallel

GRID_IMAGES = 64
"""Images shown in the grid and in the GIF."""
SAVE_SECONDS = 30.0
"""Images drawn so far are saved at least this often."""

Say = Callable[[str], None]


def description(config: ConfigDict, step: int, seed: int) -> dict[str, Any]:
    """What image number i depends on, beside i: the checkpoint, the seed and the sampler."""
    ignored = ("num_images", "batch_size", "num_frames")
    sampler = {key: value for key, value in json.loads(to_json(config))["sampler"].items() if key not in ignored}
    return {"checkpoint_step": step, "seed": seed, "sampler": sampler}


class Artist:
    """Draws image number i of a seed, with one compiled sampler, and turns samples into pictures."""

    def __init__(
        self, experiment: Experiment, parallel: Parallel, batch_size: int, value_range: tuple[float, float]
    ) -> None:
        self.experiment = experiment
        self.batch_size = batch_size
        self.value_range = value_range
        self.are_images = len(experiment.image_shape) == 3
        parallel.check_batch("config.sampler.batch_size", batch_size)
        self._sample = parallel.sampler(experiment.sample)

    def draw(self, params: PyTree, key: Array, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Images first .. first + batch_size - 1 and frames of their way, ready to be stored."""
        samples, frames = self._sample(params, jnp.arange(first, first + self.batch_size), key)
        return self.stored(np.asarray(samples)), self.stored(np.asarray(frames))

    def stored(self, samples: np.ndarray) -> np.ndarray:
        """uint8 images, or points as they are."""
        return pictures.to_uint8(samples, self.value_range) if self.are_images else samples

    def picture(self, stored: Num[np.ndarray, "num ..."]) -> Image.Image:
        """Grid of images, or scatter of points."""
        return pictures.grid(stored[:GRID_IMAGES]) if self.are_images else pictures.points(stored)


class SampleSet:
    """The images of one seed and one sampler in a directory, numbered from 0; what is there is kept and continued.

    `description` is what the images depend on; a directory that holds images of another is refused.
    """

    def __init__(self, directory: Path, description: dict[str, Any], are_images: bool) -> None:
        self.directory, self.description = directory, description
        self.key = "images" if are_images else "points"
        self.archive = directory / f"{self.key}.npz"
        self.stored: np.ndarray | None = None
        record = directory / "samples.json"
        if not record.exists():
            return
        found = json.loads(record.read_text())["description"]
        if found != json.loads(json.dumps(description)):
            raise UserError(
                f"{directory} holds samples of another seed, sampler or checkpoint; choose another --output"
            )
        if self.archive.exists():
            with self.archive.open("rb") as file, np.load(file) as archive:
                self.stored = archive[self.key]

    def __len__(self) -> int:
        return 0 if self.stored is None else len(self.stored)

    def append(self, new: np.ndarray) -> None:
        """Add the images that follow."""
        self.stored = new if self.stored is None else np.concatenate([self.stored, new])

    def save(self, facts: dict[str, Any]) -> None:
        """Write the archive, then the record that says what it holds."""
        self.directory.mkdir(parents=True, exist_ok=True)
        packed, arrays = io.BytesIO(), {self.key: self.stored}
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
        write_atomically(self.archive, packed.getvalue())
        record = {"description": self.description, "num_images": len(self), **facts}
        write_atomically(self.directory / "samples.json", json.dumps(record, indent=2) + "\n")

    def save_files(self) -> None:
        """Write every image that has no file yet as images/<number>.png."""
        folder = self.directory / "images"
        folder.mkdir(exist_ok=True)
        for i, image in enumerate(self.stored if self.stored is not None else ()):
            path = folder / f"{i:06d}.png"
            if not path.exists():
                pictures.save_png(path, Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image))


def extend(
    samples: SampleSet, artist: Artist, params: PyTree, seed: int, num_images: int, facts: dict[str, Any], say: Say
) -> None:
    """Draw the images that are missing up to `num_images`, with progress, and leave archive, grid and GIF."""
    had, key = len(samples), prng.root(seed, "sample")
    progress, last_save = Progress(had, num_images), time.monotonic()
    while len(samples) < num_images:
        first = len(samples)
        stored, frames = artist.draw(params, key, first)
        samples.append(stored[: num_images - first])
        speed, left = progress.report(len(samples))
        say(f"sample {len(samples):,}/{num_images:,}  {speed:.3g} images/s  {left} left")
        if first == 0 and is_first():
            samples.directory.mkdir(parents=True, exist_ok=True)
            shown = [artist.picture(frame[: len(samples)]) for frame in frames]
            pictures.save_gif(samples.directory / "annealing.gif", [*shown, artist.picture(stored[: len(samples)])])
        if is_first() and time.monotonic() - last_save > SAVE_SECONDS:
            samples.save(facts)
            last_save = time.monotonic()
    if samples.stored is None or len(samples) == had:
        return
    field = None if artist.are_images else _score_field(artist, params, samples.stored)
    if not is_first():
        return
    samples.save(facts)
    if had < GRID_IMAGES or not artist.are_images:
        pictures.save_png(samples.directory / "grid.png", artist.picture(samples.stored))
    if field is not None:
        pictures.save_png(samples.directory / "score_field.png", field)


def _score_field(artist: Artist, params: PyTree, points: np.ndarray) -> Image.Image:
    """The score of the smallest noise that still reaches from cluster to cluster: the geometric middle of the
    ladder.
    """
    sde = artist.experiment.sde
    t = jnp.asarray(0.5 * (sde.t_min + sde.t_max))
    axis = np.linspace(-2.8, 2.8, 24)
    at = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32)

    @jax.jit
    def score(params: PyTree) -> Array:
        return sde.score(artist.experiment.noise_fn(params)(jnp.asarray(at), t), t)

    return pictures.score_field(points, at, np.asarray(score(params)), float(sde.sigma(t)))
