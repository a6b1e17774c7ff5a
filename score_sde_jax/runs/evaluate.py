"""The evaluation driver: measurements of held-out images with a checkpoint, which later calls continue."""

import contextlib
import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from score_sde_jax import keys as prng
from score_sde_jax.data import Dataset
from score_sde_jax.devices.machine import num_devices
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build, pictures, workdir
from score_sde_jax.runs.checkpoint import fingerprint
from score_sde_jax.runs.experiment import Experiment, abstract_average, average_of
from score_sde_jax.runs.numbered import Rows, agrees, batches
from score_sde_jax.runs.records import quarantine, read_object, write_atomically
from score_sde_jax.runs.reporting import Say
from score_sde_jax.settings import Settings, identity, plain, with_values
from score_sde_jax.tasks import MEASURES, Measure, MeasureSetup


def evaluate(
    settings: Settings,
    directory: Path,
    checkpoint: int | Literal["best"] | None = None,
    seed: int | None = None,
    say: Say = print,
) -> Path:
    """Measure held-out images with the options of section `eval`.

    Args:
        settings: settings of the run.
        directory: workdir of the run.
        checkpoint: step of the checkpoint, or "best"; None for the latest.
        seed: seed of the noise; None for that of the settings.
        say: takes the log lines.

    Returns:
        Directory of the results.

    Raises:
        UserError: the run, its checkpoint or the images do not fit the settings.
    """
    options = settings.eval
    if not any(getattr(options, name) for name in MEASURES):
        raise UserError(f"--config.eval: {' and '.join(MEASURES)} are both False; nothing to evaluate")
    settings, image_shape = workdir.adopt_run(directory, settings)
    held_out = _held_out_settings(settings)
    data, name = _held_out(held_out, image_shape), _name(held_out)
    experiment, parallel = build.experiment(settings, image_shape), settings.parallel()
    step, state = workdir.restore(directory, checkpoint, abstract_average(experiment, parallel, options.average))
    params = average_of(state, options.average)

    num_images = min(options.num_images or len(data), len(data))
    if options.num_images > len(data):
        say(f"note: {name} has {len(data):,} images, fewer than --config.eval.num_images={options.num_images}")
    seed = settings.seed if seed is None else seed
    data_settings = plain(held_out)["data"]
    description = identity.measurement(settings, data_settings, step, fingerprint(params), seed, num_images)
    output = _output(directory / "eval" / str(step), description)
    for line in data.lines():
        say(line)
    say(f"Evaluating step {step:,} of {directory} on {num_images:,} images of {name}")
    trained_on = _trained_on(settings, held_out)
    if trained_on:
        say(
            "warning: the run trains on these images; choose held-out ones with --config.eval.split or "
            "--config.eval.dir"
        )
    measures = _measures(settings, experiment, data)
    training = build.dataset(settings) if not trained_on and any(each.training for each in measures) else None
    run = _Evaluation(parallel.per_example, params, prng.root(seed, "evaluate"), output, options.batch_size, say)
    with _claimed(output):
        run.record(description)
        for measure in measures:
            run.measure(measure, data, training if measure.training else None, num_images)
    if not run.changed:
        say(f"Nothing to do: {output} holds all results")
    say(f"Saved results: {output / 'metrics.json'}")
    return output


def _measures(settings: Settings, experiment: Experiment, data: Dataset) -> list[Measure]:
    """Return the measures that section `eval` enables, each with its options from that section."""
    measured = MeasureSetup(
        sde=experiment.sde,
        pixels=experiment.pixels,
        noise_fn=experiment.noise_fn,
        log_probabilities=experiment.log_probabilities if settings.loss.name == "classification" else None,
        held_out_loss=experiment.held_out_loss,
        num_levels=settings.loss.times.get("num_levels"),
        level_index=settings.parameterization.condition.name == "level_index",
        name=data.name,
        image_shape=data.image_shape,
    )
    return [
        make(
            measured,
            **{key: getattr(settings.eval, key) for key in inspect.signature(make).parameters if key != "setup"},
        )
        for name, make in MEASURES.items()
        if getattr(settings.eval, name)
    ]


class _Evaluation:
    """The measurements of one checkpoint, in a directory."""

    def __init__(
        self,
        per_example: Callable[..., Callable[..., PyTree]],
        params: PyTree,
        key: jax.Array,
        output: Path,
        batch_size: int,
        say: Say,
    ) -> None:
        self.per_example, self.params, self.key, self.output, self.say = per_example, params, key, output, say
        self.batch_size = -(-batch_size // num_devices()) * num_devices()  # equal parts for all devices
        self.changed = False
        metrics = output / "metrics.json"
        self.metrics: dict[str, Any] = {}
        try:
            self.metrics = read_object(metrics, "the results of an evaluation") if metrics.exists() else {}
        except UserError as error:  # the rows of the evaluation replace it
            if is_first():
                quarantine(metrics, str(error))

    def record(self, description: Mapping[str, Any]) -> None:
        """Save the settings that the results depend on, before the first result."""
        self.metrics["checkpoint_step"] = description["checkpoint_step"]
        settings = self.output / "settings.json"
        if is_first() and not settings.exists():
            write_atomically(settings, json.dumps(description, indent=2) + "\n")

    def measure(self, measure: Measure, data: Dataset, training: Dataset | None, num_images: int) -> None:
        """Measure and summarize the held-out images, and as many training images if `measure.training` is set."""
        for note in measure.notes:
            self.say(note)
        compiled = self.per_example(measure.rows)
        summaries, columns = dict[str, dict[str, Any]](), dict[str, dict[str, list]]()
        for name, images in {measure.name: data, f"training_{measure.name}": training}.items():
            if images is None:
                continue
            num = min(num_images, len(images))
            rows = Rows(self.output / f"{name}.jsonl")
            self._complete(rows, name, measure, images, num, compiled)
            whole = len(rows) // num * num
            columns[name] = {key: values[:whole] for key, values in rows.columns.items()}
            summaries[name] = measure.summary(columns[name], num)
            first, *more = measure.lines(summaries[name], num)
            self.say(f"{name.replace('_', ' ')} {first}" if measure.training else first)
            for line in more:
                self.say(line)
            self._save(name, summaries[name])
        for file, picture in measure.pictures(summaries, columns).items():
            if is_first() and (self.changed or not (self.output / file).exists()):
                pictures.save_png(self.output / file, pictures.render(picture))

    def _complete(
        self, rows: Rows, name: str, measure: Measure, data: Dataset, num_images: int, compiled: Callable[..., PyTree]
    ) -> None:
        """Measure the missing rows; row n is repeat n // num_images of image n mod num_images."""
        total, key = num_images * measure.repeats, jax.random.fold_in(self.key, measure.purpose)
        self.changed |= len(rows) < total
        for first, length in batches(rows, total, self.batch_size, self.say, name.replace("_", " ")):
            numbers = np.minimum(first + np.arange(self.batch_size), total - 1)  # the last batch is padded, then cut
            repeats, indices = np.divmod(numbers, num_images)
            images, labels = data.gather(indices)
            given = {"image": images, "label": labels, "repeat": repeats.astype(np.int32)}
            # With several processes, JAX refuses numpy arrays for arguments that are split over their devices.
            given = jax.tree.map(jnp.asarray, given)
            result = compiled(self.params, jnp.asarray(indices.astype(np.int32)), key, given)
            rows.append({column: np.asarray(values)[:length] for column, values in result.items()})

    def _save(self, name: str, summary: dict[str, Any]) -> None:
        if self.metrics.get(name) == summary:
            return
        self.changed = True
        self.metrics[name] = summary
        if is_first():
            write_atomically(self.output / "metrics.json", json.dumps(self.metrics, indent=2) + "\n")


# ------------------------------------------------------------------------- images to evaluate


def _held_out_settings(settings: Settings) -> Settings:
    """Return settings whose data are the images to evaluate: a split, a directory, or points of the next seed."""
    section, options = settings.data, settings.eval
    keys = {key: section.get(key) for key in ("dir", "split", "seed") if hasattr(section, key)}
    values: dict[str, Any] = {}
    if options.dir is not None:
        if "dir" not in keys:
            raise UserError(f"--config.eval.dir={options.dir}: data.name={section.name} has no directory")
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
    """Return the images to evaluate; a UserError names the keys of section `eval`."""
    try:
        data = build.dataset(settings)
    except UserError as error:  # the dataset names the keys of section `data`
        message = str(error)
        for key in ("split", "dir"):
            if getattr(settings.eval, key) is not None or key == "split":
                message = message.replace(f"--config.data.{key}=", f"--config.eval.{key}=")
        raise UserError(message) from error
    if data.image_shape != image_shape:
        raise UserError(f"{_name(settings)}: images of shape {data.image_shape}; the run was trained on {image_shape}")
    return data


def _trained_on(settings: Settings, held_out: Settings) -> bool:
    """Return whether the run may train on some of these images."""
    trained, measured = settings.data, held_out.data
    if trained.get("dir") != measured.get("dir") or trained.get("seed") != measured.get("seed"):
        return False
    (split, first, last), (other, start, stop) = (_slice(each.get("split")) for each in (trained, measured))
    return (split == other or "all" in (split, other)) and first < stop and start < last


def _slice(split: str | None) -> tuple[str | None, float, float]:
    """Return the name of a split and the interval of its slice, such as ("train", 0, 1000) for train[:1000].

    A slice of another form counts as the whole split.
    """
    match = re.fullmatch(r"(\w+)\[([0-9]*):([0-9]*)\]", split or "")
    if match is None:
        return (None if split is None else split.partition("[")[0]), 0, math.inf
    return match[1], float(match[2] or 0), float(match[3] or "inf")


def _name(settings: Settings) -> str:
    section = settings.data
    seed = section.get("seed")
    where = section.get("split") or section.get("dir") or (f"seed {seed}" if seed is not None else "")
    return f"{section.name} {where}".rstrip()


# ------------------------------------------------------------------------- directory of the results


def _output(base: Path, description: dict[str, Any]) -> Path:
    """Return eval/<step> for the first settings of a checkpoint, a directory inside it for others."""
    record = base / "settings.json"
    if not record.exists() or agrees(read_object(record, "the settings of an evaluation"), description):
        return base
    return base / hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]


@contextlib.contextmanager
def _claimed(output: Path) -> Iterator[None]:
    """Lock the directory while process 0 writes to it."""
    with workdir.claimed(output, str(output)) if is_first() else contextlib.nullcontext():
        yield
