"""Draw numbered images in batches and leave them in a directory, going on where an earlier call stopped."""

import hashlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, PyTree
from PIL import Image

from score_sde_jax import keys as prng
from score_sde_jax.data import declared_levels
from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import pictures
from score_sde_jax.runs.experiment import Experiment
from score_sde_jax.runs.given import Given
from score_sde_jax.runs.reporting import Progress, Say, write_atomically
from score_sde_jax.settings import Settings

GRID_IMAGES = 64
"""Images shown in the grid and in the GIF."""
SAVE_SECONDS = 30.0
"""Images drawn so far are saved at least this often."""

EVALUATIONS = "network_evaluations_per_image"


class Drawn(NamedTuple):
    """A batch as it is stored: images, frames of their way, NFE, what is kept beside the images, and whether each is
    made of numbers.
    """

    images: np.ndarray
    frames: np.ndarray
    evaluations: np.ndarray
    beside: dict[str, np.ndarray]
    finite: np.ndarray


def directory(base: Path, description: Mapping[str, Any]) -> Path:
    """Where images of this description lie: `base` for those of the run itself, a folder inside it for any others."""
    record, task = base / "samples.json", description.get("task")
    plain = json.loads(json.dumps(description))
    if not task and (not record.exists() or json.loads(record.read_text())["description"] == plain):
        return base
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]
    return base / (f"{task['name']}-{digest}" if task else f"seed{description['seed']}-{digest}")


class Artist:
    """Draws image number i of a seed, with one compiled sampler, and turns samples into pictures.

    `given` is what the experiment's task is given for each image.
    """

    def __init__(
        self, settings: Settings, experiment: Experiment, parallel: Parallel, given: Given | None = None
    ) -> None:
        assert settings.sampler is not None
        self.experiment, self.given = experiment, given
        self.batch_size = settings.sampler.batch_size
        self.value_range = settings.data.value_range or (0.0, 1.0)
        self.levels = declared_levels(settings.data.name) if settings.data.dequantize else None
        self.are_images = len(experiment.image_shape) == 3
        parallel.check_batch("--config.sampler.batch_size", self.batch_size)
        self._sample = parallel.per_example(experiment.sample)

    def draw(self, params: PyTree, key: Array, first: int) -> Drawn:
        """Images first .. first + batch_size - 1."""
        indices = np.arange(first, first + self.batch_size)
        # jax.Arrays: several processes do not take numpy's for what is split over their devices
        given = jax.tree.map(jnp.asarray, self.given(indices) if self.given else {})
        samples = self._sample(params, jnp.asarray(indices), key, given)
        images, frames, evaluations = map(np.asarray, samples)
        beside = self.given.beside(indices, images, key) if self.given else {}
        finite = np.isfinite(images).all(axis=tuple(range(1, images.ndim)))
        images, frames = (self.stored(np.nan_to_num(values)) for values in (images, frames))
        return Drawn(images, frames, evaluations, beside, finite)

    def stored(self, samples: np.ndarray) -> np.ndarray:
        """uint8 images, or points as they are."""
        return pictures.to_uint8(samples, self.value_range, self.levels) if self.are_images else samples

    def picture(self, stored: Num[np.ndarray, "num ..."]) -> Image.Image:
        """Grid of images, or scatter of points."""
        return pictures.grid(stored[:GRID_IMAGES]) if self.are_images else pictures.points(stored)


class SampleSet:
    """The images of one seed and one sampler in a directory, numbered from 0; what is there is kept and continued.

    `description` is what the images depend on; a directory that holds images of another is refused. `beside` holds
    arrays with one row for every image, such as labels, that lie in the archive too.
    """

    def __init__(self, directory: Path, description: dict[str, Any], are_images: bool) -> None:
        self.directory, self.description = directory, description
        self.key = "images" if are_images else "points"
        self.archive = directory / f"{self.key}.npz"
        self.stored: np.ndarray | None = None
        self.beside: dict[str, np.ndarray] = {}
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
                arrays = dict(archive)
            self.stored, self.beside = arrays.pop(self.key), arrays

    def __len__(self) -> int:
        return 0 if self.stored is None else len(self.stored)

    def append(self, new: np.ndarray, beside: Mapping[str, np.ndarray]) -> None:
        """Add the images that follow, and what is kept beside them."""
        if self.stored is None:
            self.stored, self.beside = new, dict(beside)
            return
        self.stored = np.concatenate([self.stored, new])
        self.beside = {key: np.concatenate([had, beside[key]]) for key, had in self.beside.items()}

    def save(self, facts: dict[str, Any]) -> None:
        """Write the archive, then the record that says what it holds."""
        self.directory.mkdir(parents=True, exist_ok=True)
        packed, arrays = io.BytesIO(), {self.key: self.stored, **self.beside}
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
    """Draw the images that are missing up to `num_images`, with progress, and leave archive, grid and GIF.

    `facts` are kept with them, and the mean number of network evaluations of an image.
    """
    had, key = len(samples), prng.root(seed, "sample")
    progress, last_save, evaluations = Progress(had, num_images), time.monotonic(), 0.0
    while len(samples) < num_images:
        first = len(samples)
        drawn = artist.draw(params, key, first)
        wanted = slice(num_images - first)
        stored = drawn.images[wanted]
        _require_numbers(drawn.finite[wanted], first)
        samples.append(stored, {name: rows[wanted] for name, rows in drawn.beside.items()})
        evaluations += float(drawn.evaluations[wanted].sum())
        facts = facts | {EVALUATIONS: round(evaluations / (len(samples) - had), 1)}
        speed, left = progress.report(len(samples))
        say(f"sample {len(samples):,}/{num_images:,}  {speed:.3g} images/s  {left} left")
        if first == 0 and is_first():
            samples.directory.mkdir(parents=True, exist_ok=True)
            shown = [artist.picture(frame[wanted]) for frame in drawn.frames]
            pictures.save_gif(samples.directory / "annealing.gif", [*shown, artist.picture(stored)])
        if is_first() and time.monotonic() - last_save > SAVE_SECONDS:
            samples.save(facts)
            last_save = time.monotonic()
    if samples.stored is None or len(samples) == had:
        return
    say(f"{facts[EVALUATIONS]:,} network evaluations for an image")
    field = None if artist.are_images else _score_field(artist, params, samples.stored)
    if not is_first():
        return
    samples.save(facts)
    if had < GRID_IMAGES or not artist.are_images or not (samples.directory / "grid.png").exists():
        pictures.save_png(samples.directory / "grid.png", artist.picture(samples.stored))
    if field is not None:
        pictures.save_png(samples.directory / "score_field.png", field)
    if artist.given:
        beside = {name: rows[:GRID_IMAGES] for name, rows in samples.beside.items()}
        for name, picture in artist.given.pictures(samples.stored[:GRID_IMAGES], beside).items():
            pictures.save_png(samples.directory / name, picture)


def _require_numbers(finite: np.ndarray, first: int) -> None:
    """Raise UserError for images that are not numbers; an adaptive solver leaves such ones where it gives up."""
    if not finite.all():
        raise UserError(
            f"image {first + int(np.argmin(finite))} is not finite: the network is not, or an adaptive solver ran out "
            "of max_evaluations; allow more, or larger rtol and atol"
        )


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
