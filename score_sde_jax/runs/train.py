"""The training driver: data in, checkpoints, metrics and pictures out."""

import contextlib
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from score_sde_jax import keys as prng
from score_sde_jax.data import training_batches
from score_sde_jax.devices import costs, processes
from score_sde_jax.devices.machine import num_devices
from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.devices.processes import Stop, is_first, stopping
from score_sde_jax.errors import RunError, UserError
from score_sde_jax.runs import build, drawing, pictures, workdir
from score_sde_jax.runs.checkpoint import Checkpoints, DamagedError, Retention
from score_sde_jax.runs.drawing import Artist, SampleSet, Say
from score_sde_jax.runs.experiment import training_flops
from score_sde_jax.runs.reporting import (
    Logger,
    MetricsLog,
    Profile,
    Progress,
    Stopwatch,
    TensorBoard,
    WeightsAndBiases,
    duration,
    read_metrics,
)
from score_sde_jax.runs.step import TrainState
from score_sde_jax.runs.window import Window
from score_sde_jax.settings import auto as automatic

IN_FLIGHT = 2
"""Calls that may be queued on the device before the host waits, so that batches do not pile up in memory."""


def train(config: ConfigDict, directory: Path, say: Say = print, profile: str = "") -> None:
    """Train the experiment of a finished config in `directory`, from its latest checkpoint on, and draw a final set.

    `profile` is "" or "FIRST:LAST", the steps to trace. Raises UserError, RunError and StoppedError.
    """
    options = build.train_options(config)
    saved = workdir.saved_config(directory)
    workdir.adopt_automatic(config, saved)
    parallel = build.parallel(config)
    parallel.check_batch("config.train.batch_size", options.batch_size, options.microbatches)
    data = build.dataset(config)
    for line in automatic.choose_automatic(config, data):
        say(line)
    workdir.refuse_another_run(directory, config, saved)
    experiment = build.experiment(config, data.image_shape)
    artist = Artist(config, experiment, parallel) if experiment.sampler else None
    tracing = Profile(profile if is_first() else "", directory)
    if len(data) < options.batch_size:
        say(f"note: a batch of {options.batch_size} is more than the {len(data)} images of {data.name}")
    with contextlib.ExitStack() as held:
        if is_first():
            held.enter_context(workdir.claimed(directory))
            workdir.record(directory, config, data.image_shape)
        run = _Run(config, directory, experiment, artist, parallel, say)
        run.train(data, tracing)


class _Run:
    """One run in its directory: state, steps, and what surrounds them."""

    def __init__(
        self,
        config: ConfigDict,
        directory: Path,
        experiment: build.Experiment,
        artist: Artist | None,
        parallel: Parallel,
        say: Say,
    ) -> None:
        self.config, self.directory, self.experiment = config, directory, experiment
        self.artist, self.parallel, self.say = artist, parallel, say
        self.options, self.saving = build.train_options(config), build.checkpoint_options(config)
        self.stopwatch = Stopwatch()
        self.flops_per_image = training_flops(experiment) if costs.peak_flops() else 0.0
        retention = Retention(keep=self.saving.keep, keep_every=self.saving.keep_every)
        about = {"config": config.copy_and_resolve_references().to_dict()}
        self.checkpoints = Checkpoints(directory / "checkpoints", retention, about)
        self.best = Checkpoints(directory / "best", Retention(), about) if self.saving.keep_best else None
        self.lowest_loss = math.inf
        if self.best and (steps := self.best.steps()):
            try:
                self.lowest_loss = self.best.about_step(steps[-1])["loss"]
            except DamagedError as error:
                logging.warning("%s; the next one takes its place", error)

    def train(self, data: Any, tracing: Profile) -> None:
        """Train from the latest checkpoint on to the last step, and draw the final set."""
        options, key = self.options, prng.root(self.config.seed, "init")
        abstract = self.parallel.abstract(self.experiment.init, key)
        restored = self.checkpoints.restore_latest(abstract, set_aside=True)
        start, state = restored if restored else (0, self.parallel.init(self.experiment.init, key))
        if start >= options.steps:
            self.say(f"{self.directory} is a finished run of {start:,} steps; nothing to train")
            self._final_set(state)
            return
        if start % options.steps_per_call:
            raise UserError(
                f"config.train.steps_per_call={options.steps_per_call} does not divide step {start} of the checkpoint"
            )
        window = Window(start)
        if restored:
            self.say(f"resuming {self.directory} from the checkpoint of step {start:,}")
            window = Window.from_json(self.checkpoints.about_step(start)["window"])
        batches = training_batches(
            data,
            batch_size=options.batch_size,
            seed=self.config.seed,
            start_step=start,
            process_index=processes.index(),
            process_count=processes.count(),
            **build.pipeline(self.config),
        )
        try:
            with stopping() as stop:
                state = self._loop(state, window, _stacked(batches, options.steps_per_call), stop, tracing)
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise RunError(f"{self.directory}: a device or another process failed ({reason})") from error
        finally:
            self._close()
        self._final_set(state)

    def _close(self) -> None:
        """Wait for saves under way, whatever stopped the loop."""
        self.checkpoints.close()
        if self.best:
            self.best.close()

    def _loop(
        self, state: TrainState, window: Window, batches: Iterator[Any], stop: Stop, tracing: Profile
    ) -> TrainState:
        """The steps from that of the state to train.steps, several in each call."""
        options, key, start = self.options, prng.root(self.config.seed, "train"), int(state.step)
        log, began = self._metrics_log(start), time.monotonic()
        sharded: Iterator[Any] = map(self.parallel.shard, batches)
        first = next(sharded)
        compiled = self.parallel.compiled(self.experiment.steps(), state, first, key)
        self.say(f"compiled the training step in {time.monotonic() - began:.1f} s")
        sharded = itertools.chain([first], sharded)
        stop.patient = True  # from here on there is something to save
        progress, votes = Progress(start, options.steps), deque[jax.Array]()
        for step in range(start + options.steps_per_call, options.steps + 1, options.steps_per_call):
            tracing.before(step, options.steps_per_call)
            with self.stopwatch.timed("data"):
                batch = next(sharded)
            with self.stopwatch.timed("compute"):
                state, metrics, vote = compiled(state, batch, key, self.parallel.flags(stop.received is not None))
                window.append(metrics)
                votes.append(vote)
                stopped = len(votes) > IN_FLIGHT and bool(votes.popleft())  # waits for that call
            if tracing.after(step, metrics):
                self.say(f"trace of the steps {tracing.first} to {step} in {tracing.directory}")
            last = step == options.steps
            stopped = stopped or (last and any(map(bool, votes)))
            if step % options.log_every == 0 or last:
                self._report(log, progress, step, window)
            pause = time.monotonic()
            if step % self.saving.every == 0 or last or stopped:
                with self.stopwatch.timed("save"):
                    self._save(step, state, window, log)
            if stopped:
                raise stop.error(step)
            if self.artist and options.preview_every and step % options.preview_every == 0 and not last:
                self._preview(self.artist, step, state)
            progress.exclude(time.monotonic() - pause)
        tracing.close()
        if log:
            log.close()
        return state

    def _metrics_log(self, start: int) -> MetricsLog | None:
        if not is_first():
            return None
        loggers: list[Logger] = []
        if self.options.tensorboard:
            loggers.append(TensorBoard(self.directory, start))
        if self.options.wandb:
            loggers.append(WeightsAndBiases(self.directory, start))
        return MetricsLog(self.directory, start, loggers)

    def _report(self, log: MetricsLog | None, progress: Progress, step: int, window: Window) -> None:
        options, means = self.options, window.report(self.options.max_skipped)
        steps_per_second, left = progress.report(step)
        split = self.stopwatch.report()
        if log is None:
            return
        speed = steps_per_second * options.batch_size
        values = {
            **means,
            "learning_rate": float(self.experiment.schedule(step - 1)),
            "images_per_second": speed,
            "images_per_second_per_device": speed / num_devices(),
            **{f"seconds_{part}": seconds for part, seconds in split.items()},
            **costs.device_use(self.flops_per_image * speed / num_devices()),
        }
        log.write(step, values)
        self.say(
            f"step {step:,}/{options.steps:,}  loss {means['loss']:.4g}  grad norm {means['grad_norm']:.3g}  "
            f"lr {values['learning_rate']:.2e}  {speed:,.0f} images/s  {left} left"
        )

    def _save(self, step: int, state: TrainState, window: Window, log: MetricsLog | None) -> None:
        window.require_finite(self.options.max_skipped)
        loss = window.loss_since_save() if step % self.saving.every == 0 else None
        about = {"loss": loss, "window": window.to_json()}
        self.checkpoints.save(step, state, **about)
        if self.best and loss is not None and loss < self.lowest_loss:
            self.best.save(step, state, **about)
            self.lowest_loss = loss
        if log:
            pictures.save_png(self.directory / "loss.png", pictures.loss_curve(read_metrics(log.path)))

    def _preview(self, artist: Artist, step: int, state: TrainState) -> None:
        began = time.monotonic()
        stored = artist.draw(state.ema_params, prng.root(self.config.seed, "sample"), 0)[0]
        if is_first():
            path = self.directory / "samples" / str(step) / "grid.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pictures.save_png(path, artist.picture(stored))
            self.say(f"preview {path} in {duration(time.monotonic() - began)}")

    def _final_set(self, state: TrainState) -> None:
        """The set of images that the finished run leaves, or what is missing of it."""
        if not self.artist:
            return
        options, step = build.sampler_options(self.config), int(state.step)
        samples = SampleSet(
            self.directory / "samples" / str(step),
            drawing.description(self.config, step, self.config.seed),
            self.artist.are_images,
        )
        if len(samples) >= options.num_images:
            return
        self.say(f"drawing {options.num_images:,} images")
        drawing.extend(samples, self.artist, state.ema_params, self.config.seed, options.num_images, {}, self.say)
        self.say(
            f"look at {samples.directory / 'grid.png'}, annealing.gif beside it, and {self.directory / 'loss.png'}"
        )


def _stacked(batches: Iterator[Any], steps: int) -> Iterator[Any]:
    """`steps` batches at a time, stacked."""
    while True:
        yield jax.tree.map(lambda *rows: np.stack(rows), *itertools.islice(batches, steps))
