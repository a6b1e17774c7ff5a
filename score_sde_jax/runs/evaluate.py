"""The evaluation driver: loss and likelihood of held-out images under a checkpoint, continued, never mixed."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from score_sde_jax import keys as prng
from score_sde_jax.data import Dataset
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build, measures, pictures, results, workdir
from score_sde_jax.runs.experiment import Experiment, abstract_averages
from score_sde_jax.runs.measures import Measure, Pixels
from score_sde_jax.runs.reporting import Say, write_atomically
from score_sde_jax.runs.results import Rows
from score_sde_jax.runs.step import NUM_BINS
from score_sde_jax.settings import Settings, identity, plain, with_values

BITS, NATS, LOSS, TRAINING_LOSS = "bits_per_dim", "nats_per_dim", "loss", "training_loss"
"""Names of results; nats, of the density itself, where the data are continuous."""
LIKELIHOOD_KEY, LOSS_KEY = range(2)
"""Folded into the key. Held-out and training images of one number share noise, so that their losses differ by less."""
MANY_DIRECTIONS = 256
"""An exact divergence of more numbers than this is worth a warning."""


def evaluate(
    settings: Settings,
    directory: Path,
    checkpoint: int | Literal["best"] | None = None,
    seed: int | None = None,
    say: Say = print,
) -> Path:
    """Measure what section `eval` asks for, of the run in `directory`; the directory that the results lie in.

    `checkpoint` is its step, or "best" (the latest); `seed` that of the noise (the config's). Raises UserError.
    """
    options = settings.eval
    if not (options.loss or options.bits_per_dim):
        raise UserError("--config.eval: loss and bits_per_dim are both False; nothing to evaluate")
    settings, image_shape = workdir.adopt_run(directory, settings)
    held_out = _held_out_settings(settings)
    data, name = _held_out(held_out, image_shape), _name(held_out)
    experiment, parallel = build.experiment(settings, image_shape), settings.parallel()
    step, averages = workdir.restore(directory, checkpoint, abstract_averages(experiment, parallel))

    num_images = min(options.num_images or len(data), len(data))
    if options.num_images > len(data):
        say(f"note: {name} has {len(data):,} images, fewer than --config.eval.num_images={options.num_images}")
    seed = settings.seed if seed is None else seed
    description = identity.measurement(settings, plain(held_out)["data"], step, seed, num_images)
    output = _output(directory / "eval" / str(step), description)
    say(f"evaluating the checkpoint of step {step:,} in {directory} on {num_images:,} images of {name}")
    trained_on = _trained_on(settings, held_out)
    if trained_on:
        say(
            "note: these are images that the run trains on, nothing is held out; see --config.eval.split and "
            "--config.eval.dir"
        )
    run = _Evaluation(settings, experiment, parallel.per_example, averages["ema_params"], seed, output, say)
    with _claimed(output):
        run.record(description)
        if options.loss:
            run.losses(data, num_images, None if trained_on else build.dataset(settings))
        if options.bits_per_dim:
            run.likelihood(data, num_images)
    if not run.changed:
        say(f"{output} holds all of it already; nothing to do")
    say(f"results: {output / 'metrics.json'}")
    return output


class _Evaluation:
    """The measurements of one checkpoint on one set of images, in a directory."""

    def __init__(
        self,
        settings: Settings,
        experiment: Experiment,
        per_example: Callable[..., Callable[..., PyTree]],
        params: PyTree,
        seed: int,
        output: Path,
        say: Say,
    ) -> None:
        self.settings, self.options, self.experiment = settings, settings.eval, experiment
        self.per_example, self.params = per_example, params
        self.key, self.output, self.say = prng.root(seed, "evaluate"), output, say
        self.changed = False
        metrics = output / "metrics.json"
        self.metrics: dict[str, Any] = json.loads(metrics.read_text()) if metrics.exists() else {}

    def record(self, description: dict[str, Any]) -> None:
        """Save what the results depend on, before there are any."""
        self.metrics["checkpoint_step"] = description["checkpoint_step"]
        settings = self.output / "settings.json"
        if is_first() and not settings.exists():
            write_atomically(settings, json.dumps(description, indent=2) + "\n")

    def losses(self, data: Dataset, num_images: int, training: Dataset | None) -> None:
        """Loss of the held-out images, and of as many that were trained on."""
        curves, levels = {}, self.settings.loss.times.get("num_levels")
        classifies = self.settings.loss.name == "classification"
        measure = measures.held_out_losses(self.experiment, self._pixels(data), self.options.draws, levels, classifies)
        compiled = self.per_example(measure)
        for name, images in {LOSS: data, TRAINING_LOSS: training}.items():
            if images is None:
                continue
            num = min(num_images, len(images))
            rows = self._rows(name, images, num, num, compiled, LOSS_KEY)
            found = results.loss_summary(rows.columns, NUM_BINS)
            curves[name.replace("_", " ")] = found["level_loss"]
            self.say(f"{name.replace('_', ' ')} {_plus_minus(found)} over {num:,} images, {self.options.draws} draws")
            if classifies:
                accuracies = [_plus_minus(found[key]) for key in ("accuracy", "accuracy_all_levels")]
                self.say(f"accuracy {accuracies[0]} at the smallest noise, {accuracies[1]} over all noise levels alike")
            self._save(name, found)
        self._draw("level_loss.png", lambda: pictures.level_curves(curves, "loss per noise level"))

    def likelihood(self, data: Dataset, num_images: int) -> None:
        """Bits or nats that a number of the held-out images takes."""
        options, continuous = self.options, data.levels is None
        self._say_likelihood_notes(data)
        compiled = self.per_example(measures.likelihoods(self.experiment, self._pixels(data), options))
        name, label = (NATS, "nats/dim") if continuous else (BITS, "bits/dim")
        rows = self._rows(name, data, num_images, num_images * options.repeats, compiled, LIKELIHOOD_KEY)
        whole = len(rows) // num_images * num_images
        columns = {key: values[:whole] for key, values in rows.columns.items()}
        found = results.likelihood_summary(columns, num_images)
        self.say(
            f"{label} {_plus_minus(found)} over {num_images:,} images, {found['repeats']} times; network evaluations "
            f"{found['evaluations_mean']:,.1f} on average, {found['evaluations_max']:,} at most"
        )
        if found["not_converged"]:
            named = ", ".join(f"{image} (repeat {repeat})" for repeat, image in found["not_converged_images"][:10])
            self.say(
                f"warning: the solver gave up on {found['not_converged']} of {whole:,}, which are left out: images "
                f"{named}; look at --config.eval.max_evaluations, rtol and atol"
            )
        self._save(name, found)
        values = np.array([value for value in columns["value"] if value is not None])
        if len(values):
            self._draw(f"{name}.png", lambda: pictures.histogram(values, label))

    def _say_likelihood_notes(self, data: Dataset) -> None:
        dim = int(np.prod(data.image_shape))
        if data.levels is None:
            self.say(f"note: {data.name} are continuous, so this is -log p / {dim} in nats, without dequantisation")
        if self.settings.parameterization.condition.name == "level_index":
            self.say("note: the network is told the nearest noise level, so the flow jumps, and takes many evaluations")
        if self.options.divergence == "exact" and dim > MANY_DIRECTIONS:
            self.say(
                f"note: an exact divergence takes {dim:,} derivatives at every evaluation of the network; "
                "--config.eval.divergence=rademacher takes --config.eval.num_probes"
            )

    def _pixels(self, data: Dataset) -> Pixels:
        return Pixels(
            levels=data.levels, value_range=self.settings.data.value_range, dequantize=self.settings.data.dequantize
        )

    def _rows(self, name: str, data: Dataset, num_images: int, total: int, compiled: Measure, part: int) -> Rows:
        """Results of `total` images, number n of which is image n mod num_images for the n // num_images-th time."""
        rows = Rows(self.output / f"{name}.jsonl")
        key = jax.random.fold_in(self.key, part)

        def of_numbers(numbers: np.ndarray) -> Mapping[str, Array]:
            repeats, indices = np.divmod(numbers, num_images)
            images, labels = data.gather(indices)
            given = {"image": images, "label": labels, "repeat": repeats.astype(np.int32)}
            # As arrays of JAX: with several processes it refuses those of numpy.
            return compiled(self.params, jnp.asarray(indices.astype(np.int32)), key, jax.tree.map(jnp.asarray, given))

        self.changed |= len(rows) < total
        results.complete(rows, total, self.options.batch_size, of_numbers, self.say, name.replace("_", " "))
        return rows

    def _save(self, name: str, found: dict[str, Any]) -> None:
        if self.metrics.get(name) == found:
            return
        self.changed = True
        self.metrics[name] = found
        if is_first():
            write_atomically(self.output / "metrics.json", json.dumps(self.metrics, indent=2) + "\n")

    def _draw(self, file: str, picture: Callable[[], Any]) -> None:
        if is_first() and (self.changed or not (self.output / file).exists()):
            pictures.save_png(self.output / file, picture())


# ------------------------------------------------------------------------- which images


def _held_out_settings(settings: Settings) -> Settings:
    """Settings whose data are the images to evaluate: split "test", another directory, or points of the next seed."""
    section, options = settings.data, settings.eval
    keys = {key: section.get(key) for key in ("dir", "split", "seed") if hasattr(section, key)}
    values: dict[str, Any] = {}
    if options.dir is not None:
        if "dir" not in keys:
            raise UserError(f"--config.eval.dir={options.dir}: {section.name} lie in no directory")
        values["data.dir"] = options.dir
    if "split" in keys:
        values["data.split"] = options.split or "test"
    elif options.split is not None:
        instead = "; name the directory of held-out images with --config.eval.dir" if "dir" in keys else ""
        raise UserError(f"--config.eval.split={options.split}: {section.name} has no splits{instead}")
    elif "seed" in keys:
        values["data.seed"] = keys["seed"] + 1
    return with_values(settings, values)


def _held_out(settings: Settings, image_shape: tuple[int, ...]) -> Dataset:
    try:
        data = build.dataset(settings)
    except UserError as error:  # the dataset knows the keys of its own section alone
        message = str(error)
        for key in ("split", "dir"):
            if getattr(settings.eval, key) is not None or key == "split":
                message = message.replace(f"--config.data.{key}=", f"--config.eval.{key}=")
        raise UserError(message) from error
    if data.image_shape != image_shape:
        raise UserError(f"{_name(settings)}: images of shape {data.image_shape}; the run was trained on {image_shape}")
    return data


def _trained_on(settings: Settings, held_out: Settings) -> bool:
    """Whether these are images that the run trains on."""
    ours, theirs = settings.data, held_out.data
    if ours.get("dir") != theirs.get("dir") or ours.get("seed") != theirs.get("seed"):
        return False
    return ours.get("split") in (theirs.get("split"), "all")


def _name(settings: Settings) -> str:
    section = settings.data
    seed = section.get("seed")
    where = section.get("split") or section.get("dir") or (f"seed {seed}" if seed is not None else "")
    return f"{section.name} {where}".rstrip()


# ------------------------------------------------------------------------- where the results lie


def _output(base: Path, description: dict[str, Any]) -> Path:
    """eval/<step> for the first settings, a directory inside for any others."""
    record = base / "settings.json"
    if not record.exists() or json.loads(record.read_text()) == json.loads(json.dumps(description)):
        return base
    return base / hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]


@contextlib.contextmanager
def _claimed(output: Path) -> Iterator[None]:
    """Hold the directory while process 0 writes to it."""
    with workdir.claimed(output) if is_first() else contextlib.nullcontext():
        yield


def _plus_minus(found: Mapping[str, Any]) -> str:
    """A mean with its standard error."""
    mean, error = (found[key] for key in ("mean", "standard_error"))
    return " +- ".join(f"{number:.4g}" if number is not None else "unknown" for number in (mean, error))
