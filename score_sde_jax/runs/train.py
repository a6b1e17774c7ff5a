"""The training driver: from data to checkpoints, metrics and pictures."""

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
from jaxtyping import PyTree
from PIL import Image

from score_sde_jax import keys as prng
from score_sde_jax.data import Dataset, training_batches
from score_sde_jax.devices import costs, processes
from score_sde_jax.devices.machine import num_devices, on_cpu
from score_sde_jax.devices.parallel import Parallel, bytes_per_device
from score_sde_jax.devices.processes import is_first
from score_sde_jax.devices.signals import Stop, stopping
from score_sde_jax.errors import RunError, UserError
from score_sde_jax.networks.convolution import native_convolutions
from score_sde_jax.runs import batch_sampler, build, pictures, workdir
from score_sde_jax.runs.batch_sampler import BatchSampler
from score_sde_jax.runs.checkpoint import Checkpoints, DamagedError, Retention, fingerprint
from score_sde_jax.runs.experiment import Experiment, average_of, training_cost
from score_sde_jax.runs.flat import flatten_state, unflatten_state
from score_sde_jax.runs.reporting import (
    Logger,
    MetricsLog,
    Profile,
    Progress,
    Say,
    Stopwatch,
    TensorBoard,
    WeightsAndBiases,
    check_loggers,
    duration,
    read_metrics,
)
from score_sde_jax.runs.step import TrainState
from score_sde_jax.runs.window import Window
from score_sde_jax.settings import Settings, adopt, identity, plain, resolve, with_values
from score_sde_jax.settings.identity import changed_training
from score_sde_jax.settings.rules import LENGTHS, at

FLOATS_PER_VALUE = 3
"""Numbers that a training step holds at least for each value of an image: clean image, noise and noisy image."""
SMALLER = "a smaller --config.train.batch_size or model, more --config.train.microbatches,"
"""Remedies for a lack of memory."""
MOST_STEPS_PER_CALL = 10
"""Largest number of steps in one call if the config leaves it open."""
IN_FLIGHT = 2
"""Largest number of calls in the queue of the device, which bounds the batches in memory."""


def train(settings: Settings, directory: Path, say: Say = print, profile: str = "") -> None:
    """Train from the latest checkpoint of a workdir, and draw a final set of images.

    Nothing is written before all checks have passed and the step is compiled.

    Args:
        settings: Settings of the run.
        directory: Workdir of the run.
        say: Takes the log lines.
        profile: "FIRST:LAST", the steps to trace; "" for none.

    Raises:
        UserError: Settings, data or workdir do not fit, or updates are not finite.
        RunError: A device or another process failed, or a checkpoint cannot be written.
        StoppedError: A signal stopped the run after its state was saved.
    """
    saved = workdir.saved_config(directory)
    if saved is not None:
        settings = adopt(settings, saved)
    parallel = settings.parallel()
    parallel.check_batch("--config.train.batch_size", settings.train.batch_size, settings.train.microbatches)
    data = build.dataset(settings)
    settings, choices = resolve(settings, data)
    workdir.refuse_another_run(directory, settings, training=True)
    workdir.refuse_other_classes(directory, data)
    experiment = build.experiment(settings, data.image_shape)
    run = _Run(settings, directory, experiment, parallel, say)
    if is_first():
        workdir.refuse_claimed(directory)
    run.open(data, profile)
    lines = [*data.lines(), *choices, *experiment.notes()]
    if len(data) < settings.train.batch_size:
        lines.append(
            f"note: train.batch_size={settings.train.batch_size} exceeds the {len(data):,} images of {data.name}"
        )
    with contextlib.ExitStack() as held:
        if is_first():
            held.enter_context(workdir.claimed(directory))
        for line in lines:
            say(line)
        run.train()


class _Run:
    """One run: its state, its loop, and its files."""

    def __init__(
        self, settings: Settings, directory: Path, experiment: Experiment, parallel: Parallel, say: Say
    ) -> None:
        self.settings, self.directory, self.experiment = settings, directory, experiment
        self.parallel, self.say = parallel, say
        self.options, self.saving = settings.train, settings.checkpoint
        flat = self.options.flat
        self.flat = not (on_cpu() or parallel.fully_sharded) if flat is None else flat
        self.sampler = BatchSampler(settings, experiment, parallel) if experiment.sampler else None
        self.stopwatch = Stopwatch()
        self.dtype = build.computed_in(settings.train.precision, settings.model.get("dtype") or "float32")
        self.flops_per_image = self._flops_per_image() if costs.peak_flops(self.dtype) else 0.0
        self.lowest_loss = math.inf
        self.checkpoints: Checkpoints | None = None
        self.best: Checkpoints | None = None
        self.log: MetricsLog | None = None

    def open(self, data: Dataset, profile: str) -> None:
        """Read the latest checkpoint and make every check; write nothing."""
        options = self.options
        check_loggers(self.directory, tensorboard=options.tensorboard, wandb=options.wandb)
        self.tracing = Profile(profile if is_first() else "", self.directory)
        self.saved_steps, self.start, self.window = list[int](), 0, Window(0)
        self.state: TrainState | None = None
        folder = self.directory / "checkpoints"
        abstract = self.parallel.abstract(self.experiment.init, prng.root(self.settings.seed, "init"))
        self._require_memory(abstract)
        if folder.is_dir():
            reader = Checkpoints(folder)
            self.saved_steps = reader.steps()
            restored = reader.restore_latest(abstract, optimizer=self._optimizer_state)
            if restored:
                self.start, self.state = restored
                self.window = Window.from_json(reader.about_step(self.start)["window"])
            reader.close()
        self.steps_per_call = _steps_per_call(self.settings, self.start)
        if self.start < options.steps and self.start % self.steps_per_call:
            raise UserError(
                f"--config.train.steps_per_call={options.steps_per_call}: does not divide step {self.start} of the "
                "checkpoint"
            )
        self.data = data
        self.batches = training_batches(
            data,
            batch_size=options.batch_size,
            seed=self.settings.seed,
            start_step=self.start,
            process_index=processes.index(),
            process_count=processes.count(),
        )

    def _require_memory(self, abstract: TrainState) -> None:
        """Raise UserError if state, gradient and images cannot fit, whatever the activations need."""
        options, shards = self.options, self.parallel.fully_sharded
        held = sum(bytes_per_device(tree, num_devices(), shards) for tree in (abstract, abstract.params))
        images = -(-options.batch_size // (num_devices() * options.microbatches))
        costs.require_memory(
            held + FLOATS_PER_VALUE * 4 * images * math.prod(self.experiment.image_shape),
            f"state, gradient and {images:,} images need",
            f"choose {SMALLER} or --config.parallel.fully_sharded=True on several devices",
        )

    def _flops_per_image(self) -> float:
        """Operations of the loss of an image and its gradient; recomputed activations do not count."""
        settings = with_values(self.settings, {"train.rematerialize": False})
        experiment = build.experiment(settings, self.experiment.image_shape)
        with native_convolutions():
            params = jax.eval_shape(experiment.init_params, jax.random.key(0))
        return training_cost(experiment, params, 1).flops

    def _optimizer_state(self, params: PyTree) -> PyTree:
        """Return a fresh optimizer state, for the parts that a checkpoint of another optimizer lacks."""
        self.say("Optimizer state: parts that the checkpoint lacks start fresh, the others are restored")
        return self.parallel.apply(self.experiment.optimizer.init, params)

    def train(self) -> None:
        """Train from the latest checkpoint on to the last step, and draw the final set."""
        if self.state is not None and self.start >= self.options.steps:
            self.say(f"Nothing to train: {self.directory} is a finished run of {self.start:,} steps")
            self._final_set(self.state)
            return
        self._say_resuming()
        state, self.state = self.state, None  # the step gives up the old one
        if state is None:
            state = self.parallel.init(self.experiment.init, prng.root(self.settings.seed, "init"))
        try:
            state = self._train_from(state)
            self._final_set(state)
        finally:
            if self.log:
                self.log.close()

    def _train_from(self, state: TrainState) -> TrainState:
        """Return the state after the last step; pending saves finish even if the loop fails."""
        try:
            with stopping() as stop:
                return self._loop(state, self.window, _stacked(self.batches, self.steps_per_call), stop)
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise RunError(f"{self.directory}: a device or another process failed ({reason})") from error
        finally:
            for checkpoints in (self.checkpoints, self.best):
                if checkpoints:
                    checkpoints.close()

    def _begin_to_write(self, start: int) -> None:
        """Once nothing can be refused any more: settings, checkpoints and metrics of the run from here on.

        Checkpoints that could not be read are renamed.
        """
        retention = Retention(keep=self.saving.keep, keep_every=self.saving.keep_every)
        about = {"config": plain(self.settings)}
        self.checkpoints = Checkpoints(self.directory / "checkpoints", retention, about)
        if self.checkpoints.steps() != self.saved_steps:
            raise UserError(
                f"--workdir={self.directory}: another run has written to it since this one started; start again"
            )
        if unreadable := [step for step in self.saved_steps if step > self.start]:
            self.checkpoints.quarantine(unreadable)
        self.best = Checkpoints(self.directory / "best", Retention(), about) if self.saving.keep_best else None
        if self.best and (steps := self.best.steps()):
            try:
                self.lowest_loss = self.best.about_step(steps[-1])["loss"]
            except DamagedError as error:
                logging.warning("%s; the next best checkpoint replaces it", error)
        if is_first():
            workdir.record(self.directory, self.settings, self.data)
            self.log = self._metrics_log(start)

    def _say_resuming(self) -> None:
        """Report the step that the run resumes from, and its changed settings."""
        if self.state is None:
            return
        self.say(f"Resuming {self.directory} from step {self.start:,}")
        saved = workdir.saved_settings(self.directory)
        changes = changed_training(self.settings, saved) if saved else []
        before, now = (workdir.saved_config(self.directory) or {}).get(workdir.NUM_IMAGES), len(self.data)
        if before not in (None, now):
            self.say(f"note: the dataset had {before:,} images in this run before, now it has {now:,}")
        if changes:
            self.say("Changed settings: " + ", ".join(f"{path} {there} -> {here}" for path, there, here in changes))
        if "train.batch_size" in [path for path, *_ in changes]:
            self.say(f"New batch size: the data resume at image {self.start * self.options.batch_size:,}")

    def _loop(self, state: TrainState, window: Window, batches: Iterator[Any], stop: Stop) -> TrainState:
        """Train from the step of the state to `train.steps`, several steps per call."""
        options, tracing = self.options, self.tracing
        key, start = prng.root(self.settings.seed, "train", self.options.rng), int(state.step)
        if self.flat:
            flat = self.parallel.apply(flatten_state, state, state.params)
            for leaf in jax.tree.leaves(state):
                leaf.delete()  # the callers have references to it
            state = flat
        began = time.monotonic()
        sharded: Iterator[Any] = map(self.parallel.shard, batches)
        first = next(sharded)
        compiled = self.parallel.compiled(self.experiment.steps, state, first, key)
        self.say(f"Compiled the training step in {time.monotonic() - began:.1f} s")
        copy = bytes_per_device(state, num_devices(), False) if self.flat else 0  # as parameters, for a checkpoint
        costs.require_memory(
            costs.program_bytes(compiled) + copy,
            "the compiled training step needs",
            f"choose {SMALLER} --config.train.rematerialize=True, or --config.parallel.fully_sharded=True on several "
            "devices",
        )
        sharded = itertools.chain([first], sharded)
        self._begin_to_write(start)
        stop.patient = True  # from here on a signal saves the state
        progress, votes = Progress(start, options.steps), deque[jax.Array]()
        for step in range(start + self.steps_per_call, options.steps + 1, self.steps_per_call):
            tracing.before(step, self.steps_per_call)
            with self.stopwatch.timed("data"):
                batch = next(sharded)
            with self.stopwatch.timed("compute"):
                state, metrics, vote = compiled(state, batch, key, self.parallel.flags(stop.received is not None))
                window.append(metrics)
                votes.append(vote)
                stopped = len(votes) > IN_FLIGHT and bool(votes.popleft())  # waits for that call
            if tracing.after(step, metrics):
                self.say(f"Saved trace of steps {tracing.first} to {step}: {tracing.directory}")
            last = step == options.steps
            stopped = stopped or (last and any(map(bool, votes)))
            if step % options.log_every == 0 or last:
                self._report(progress, step, window)
            pause = time.monotonic()
            if step % self.saving.every == 0 or last or stopped:
                with self.stopwatch.timed("save"):
                    self._save(step, state, window)
            if stopped:
                raise stop.error(f"step {step:,}")
            if self.sampler and options.preview_every and step % options.preview_every == 0 and not last:
                self._preview(self.sampler, step, state)
            progress.exclude(time.monotonic() - pause)
        tracing.close()
        return self._tree(state)

    def _tree(self, state: PyTree) -> PyTree:
        """Return a state, or an average of the parameters, out of its flat vectors."""
        return self.parallel.apply(unflatten_state, state) if self.flat else state

    def _metrics_log(self, start: int) -> MetricsLog:
        loggers: list[Logger] = []
        if self.options.tensorboard:
            loggers.append(TensorBoard(self.directory, start))
        if self.options.wandb:
            loggers.append(WeightsAndBiases(self.directory, start))
        return MetricsLog(self.directory, start, loggers)

    def _report(self, progress: Progress, step: int, window: Window) -> None:
        options, means = self.options, window.report(self.options.max_skipped)
        steps_per_second, left = progress.report(step)
        split = self.stopwatch.report()
        if self.log is None:
            return
        speed = steps_per_second * options.batch_size
        values = {
            **means,
            "learning_rate": float(self.experiment.schedule(step - 1)),
            "images_per_second": speed,
            "images_per_second_per_device": speed / num_devices(),
            **{f"seconds_{part}": seconds for part, seconds in split.items()},
            **costs.utilization(self.flops_per_image * speed / num_devices(), self.dtype),
            **costs.memory_use(),
        }
        self.log.write(step, values)
        self.say(
            f"step {step:,}/{options.steps:,}: loss={means['loss']:.4g} grad_norm={means['grad_norm']:.3g} "
            f"learning_rate={values['learning_rate']:.2e} images_per_second={speed:.4g} time_left={left}"
        )

    def _save(self, step: int, state: TrainState, window: Window) -> None:
        window.require_finite(self.options.max_skipped)
        state = self._tree(state)
        loss = window.loss_since_save() if step % self.saving.every == 0 else None
        about = {"loss": loss, "window": window.to_json()}
        assert self.checkpoints is not None
        self.checkpoints.save(step, state, **about)
        if self.best and loss is not None and loss < self.lowest_loss:
            self.best.save(step, state, **about)
            self.lowest_loss = loss
        if self.log:
            pictures.save_png(self.directory / "loss.png", pictures.loss_curve(read_metrics(self.log.path)))

    def _preview(self, sampler: BatchSampler, step: int, state: TrainState) -> None:
        began = time.monotonic()
        stored = sampler.draw(self._tree(self._average(state)), prng.root(self.settings.seed, "sample"), 0)[0]
        if self.log:
            path, picture = self.directory / "samples" / str(step) / "grid.png", sampler.picture(stored)
            path.parent.mkdir(parents=True, exist_ok=True)
            pictures.save_png(path, picture)
            self.log.write_image(step, "samples", picture)
            self.say(f"Saved preview: {path}; time={duration(time.monotonic() - began)}")

    def _average(self, state: TrainState) -> PyTree:
        """Return the averaged parameters that `sampler.average` names."""
        assert self.settings.sampler is not None
        averages = {"ema_params": state.ema_params, "averages": state.averages}
        return average_of(averages, self.settings.sampler.average)

    def _final_set(self, state: TrainState) -> None:
        """Complete the set of images of the finished run, and its pictures."""
        if not self.sampler:
            return
        section, step = self.settings.sampler, int(state.step)
        assert section is not None
        params, seed = self._average(state), self.settings.seed
        description = identity.images(self.settings, step, fingerprint(params), seed, {})
        base = self.directory / "samples" / str(step)
        with batch_sampler.open_set(base, None, description, self.data.image_shape) as samples:
            complete = samples.gap(section.num_images) is None
            if not complete:
                self.say(f"Sampling {section.num_images:,} images")
            batch_sampler.draw_set(samples, self.sampler, params, seed, section.num_images, {}, self.say)
        if complete:  # but its pictures were missing if the process was killed before it had drawn them
            return
        if self.log:
            with (samples.directory / "grid.png").open("rb") as file:
                self.log.write_image(step, "samples", Image.open(file))
        self.say(f"Saved samples: {samples.directory / 'grid.png'}; loss curve: {self.directory / 'loss.png'}")


def _steps_per_call(settings: Settings, start: int) -> int:
    """Return `train.steps_per_call`; if None, on accelerators a common divisor of all lengths and the first step."""
    if settings.train.steps_per_call or on_cpu():
        return settings.train.steps_per_call or 1
    common = math.gcd(start, *(at(settings, length) for length in LENGTHS))
    return max(number for number in range(1, MOST_STEPS_PER_CALL + 1) if common % number == 0)


def _stacked(batches: Iterator[Any], steps: int) -> Iterator[Any]:
    """`steps` batches at a time, stacked."""
    while True:
        yield jax.tree.map(lambda *rows: np.stack(rows), *itertools.islice(batches, steps))
