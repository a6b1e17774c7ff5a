"""The training driver: data in, checkpoints, metrics and pictures out."""

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from score_sde_jax import build, drawing, pictures, workdir
from score_sde_jax import keys as prng
from score_sde_jax.checkpoint import Checkpoints
from score_sde_jax.data import training_batches
from score_sde_jax.drawing import Artist, SampleSet, Say
from score_sde_jax.errors import UserError
from score_sde_jax.reporting import MetricsLog, Progress, duration, read_metrics
from score_sde_jax.sharding import DataParallel
from score_sde_jax.state import StepMetrics, TrainState

IN_FLIGHT = 2
"""Steps that may be queued on the device before the host waits, so that batches do not pile up in memory."""


def train(config: ConfigDict, directory: Path, say: Say = print) -> None:
    """Train the experiment of a finished config in `directory`, from its latest checkpoint on, and draw a final set."""
    options = build.train_options(config)
    saved = workdir.saved_config(directory)
    workdir.adopt_automatic(config, saved)
    parallel = DataParallel()
    parallel.check_batch("config.train.batch_size", options.batch_size)
    data = build.dataset(config)
    for line in build.choose_automatic(config, data):
        say(line)
    workdir.refuse_another_run(directory, config, saved)
    experiment = build.experiment(config, data.image_shape)
    artist = drawing_artist(config, experiment, parallel)
    pipeline = build.pipeline(config)
    if len(data) < options.batch_size:
        say(f"note: a batch of {options.batch_size} is more than the {len(data)} images of {data.name}")
    workdir.claim(directory, config, data.image_shape)

    checkpoints = Checkpoints(directory / "checkpoints", build.checkpoint_options(config).keep)
    key = prng.root(config.seed, "init")
    restored = checkpoints.restore_latest(parallel.abstract(experiment.init, key))
    start, state = restored if restored else (0, parallel.init(experiment.init, key))
    if start >= options.steps:
        say(f"{directory} is a finished run of {start:,} steps; nothing to train")
        return
    if restored:
        say(f"resuming {directory} from the checkpoint of step {start:,}")
    batches = training_batches(data, batch_size=options.batch_size, seed=config.seed, start_step=start, **pipeline)
    run = _Run(config, directory, experiment, artist, checkpoints, say)
    try:
        state = run.loop(parallel.train(experiment.step()), state, start, batches, parallel)
    finally:
        checkpoints.close()  # a save under way ends whole, whatever stopped the loop
    run.final_set(state)


def drawing_artist(config: ConfigDict, experiment: build.Experiment, parallel: DataParallel) -> Artist:
    """The artist of a config's sampler section."""
    return Artist(experiment, parallel, build.sampler_options(config).batch_size, config.data.value_range or (0.0, 1.0))


class _Run:
    """What surrounds the steps of one run: log, checkpoints, previews."""

    def __init__(
        self,
        config: ConfigDict,
        directory: Path,
        experiment: build.Experiment,
        artist: Artist,
        checkpoints: Checkpoints,
        say: Say,
    ) -> None:
        self.config, self.directory, self.experiment = config, directory, experiment
        self.artist, self.checkpoints, self.say = artist, checkpoints, say
        self.options = build.train_options(config)
        self.save_every = build.checkpoint_options(config).every

    def loop(
        self, step_fn: Callable[..., Any], state: TrainState, start: int, batches: Any, parallel: DataParallel
    ) -> TrainState:
        """Steps start + 1 .. train.steps."""
        options, key = self.options, prng.root(self.config.seed, "train")
        log = MetricsLog(self.directory, start, options.tensorboard)
        began = time.monotonic()
        sharded = (parallel.shard(batch["image"]) for batch in batches)
        first = next(sharded)
        compiled = step_fn.lower(state, first, key).compile()  # type: ignore[attr-defined]
        self.say(f"compiled the training step in {time.monotonic() - began:.1f} s")
        progress = Progress(start, options.steps)
        window: list[StepMetrics] = []
        for step, batch in zip(range(start + 1, options.steps + 1), itertools.chain([first], sharded), strict=False):
            state, metrics = compiled(state, batch, key)
            window.append(metrics)
            if len(window) > IN_FLIGHT:
                jax.block_until_ready(window[-IN_FLIGHT - 1])
            last = step == options.steps
            if step % options.log_every == 0 or last:
                self._report(log, progress, step, window)
                window = []
            pause = time.monotonic()
            if step % self.save_every == 0 or last:
                _require_finite(step, window)
                self.checkpoints.save(step, state)
                pictures.save_png(self.directory / "loss.png", pictures.loss_curve(read_metrics(log.path)))
            if options.preview_every and step % options.preview_every == 0 and not last:
                self._preview(step, state)
            progress.exclude(time.monotonic() - pause)
        log.close()
        return state

    def final_set(self, state: TrainState) -> None:
        """The set of images that the finished run leaves."""
        options, step = build.sampler_options(self.config), int(state.step)
        self.say(
            f"drawing {options.num_images:,} images, {self.experiment.sampler.evaluations():,} network evaluations each"
        )
        samples = SampleSet(
            self.directory / "samples" / str(step),
            drawing.description(self.config, step, self.config.seed),
            self.artist.are_images,
        )
        drawing.extend(samples, self.artist, state.ema_params, self.config.seed, options.num_images, {}, self.say)
        self.say(
            f"look at {samples.directory / 'grid.png'}, annealing.gif beside it, and {self.directory / 'loss.png'}"
        )

    def _report(self, log: MetricsLog, progress: Progress, step: int, window: list[StepMetrics]) -> None:
        options = self.options
        loss, grad_norm = _require_finite(step, window)
        steps_per_second, left = progress.report(step)
        values = {
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": float(self.experiment.schedule(step - 1)),
            "images_per_second": steps_per_second * options.batch_size,
        }
        log.write(step, values)
        self.say(
            f"step {step:,}/{options.steps:,}  loss {loss:.4g}  grad norm {grad_norm:.3g}  "
            f"lr {values['learning_rate']:.2e}  {values['images_per_second']:,.0f} images/s  {left} left"
        )

    def _preview(self, step: int, state: TrainState) -> None:
        began = time.monotonic()
        stored, _ = self.artist.draw(state.ema_params, prng.root(self.config.seed, "sample"), 0)
        path = self.directory / "samples" / str(step) / "grid.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures.save_png(path, self.artist.picture(stored))
        self.say(f"preview {path} in {duration(time.monotonic() - began)}")


def _require_finite(step: int, window: list[StepMetrics]) -> tuple[float, float]:
    """Mean loss and gradient norm of the last steps; UserError naming the first step where one is not finite."""
    values = np.array([(float(m.loss), float(m.grad_norm)) for m in window]).reshape(-1, 2)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        loss, grad_norm = values[bad[0]]
        raise UserError(
            f"step {step - len(window) + 1 + bad[0]}: loss {loss} and gradient norm {grad_norm} are not finite; "
            "the last checkpoint is from before; try a lower optimizer.learning_rate or optimizer.gradient_clip=1.0"
        )
    return (math.nan, math.nan) if not len(values) else (float(values[:, 0].mean()), float(values[:, 1].mean()))
