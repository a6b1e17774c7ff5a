"""Training metrics, loggers and profiler traces."""

import contextlib
import importlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from PIL import Image

from score_sde_jax import paths
from score_sde_jax.errors import UserError
from score_sde_jax.runs.records import append, is_local, quarantine, read_rows, write_atomically

Say = Callable[[str], None]
"""Function that takes the log lines of a driver."""


def duration(seconds: float) -> str:
    """Return hours, minutes and seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class Progress:
    """Speed since the last report, and the time left at the average speed since the start."""

    def __init__(self, done: int, total: int) -> None:
        self.first = self.last = done
        self.total = total
        self.start = self.since = time.monotonic()
        self.excluded = 0.0

    def exclude(self, seconds: float) -> None:
        """Exclude seconds, such as those of a preview, from the next reported speed."""
        self.excluded += seconds

    def report(self, done: int) -> tuple[float, str]:
        """Return units per second since the last report, and the time left as h:mm:ss."""
        now = time.monotonic()
        speed = (done - self.last) / max(now - self.since - self.excluded, 1e-9)
        average = (done - self.first) / max(now - self.start, 1e-9)
        self.last, self.since, self.excluded = done, now, 0.0
        return speed, duration((self.total - done) / max(average, 1e-9))


class Stopwatch:
    """Seconds spent in named parts of the loop since the last report."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        began = time.monotonic()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - began

    def report(self) -> dict[str, float]:
        """Return the seconds of each part since the last report."""
        seconds, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        return seconds


class MetricsLog:
    """metrics.jsonl, with one JSON object per logged step, and the other loggers of a run.

    A resumed run drops the lines after its first step. Objects in a bucket cannot be appended to, so the whole file is
    written each time.
    """

    def __init__(self, workdir: Path, resumed_step: int, loggers: Sequence["Logger"] = ()) -> None:
        self.path = workdir / "metrics.jsonl"
        self.loggers = loggers
        rows, unreadable = read_rows(self.path, _is_metrics)
        if unreadable:
            quarantine(self.path, f"{unreadable} of {unreadable + len(rows)} lines cannot be read and are left out")
        self._lines = [json.dumps(row) + "\n" for row in rows if row["step"] <= resumed_step]
        write_atomically(self.path, "".join(self._lines))

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append the values of one step; a value that is not finite becomes null, since JSON cannot express it."""
        values = {key: _finite(value) for key, value in values.items()}
        line = json.dumps({"step": step, **values}) + "\n"
        if is_local(self.path):
            append(self.path, line)
        else:
            self._lines.append(line)
            self.path.write_text("".join(self._lines))
        for logger in self.loggers:
            logger.write(step, values)

    def write_image(self, step: int, name: str, image: Image.Image) -> None:
        """Write an image of one step to the other loggers; metrics.jsonl has numbers only."""
        for logger in self.loggers:
            logger.write_image(step, name, image)

    def close(self) -> None:
        """Flush the other loggers."""
        for logger in self.loggers:
            logger.close()


def _finite(value: Any) -> Any:
    """Return None for a number that is not finite, also inside a list."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl that can be read."""
    return read_rows(path, _is_metrics)[0]


def _is_metrics(row: Any) -> bool:
    """Return whether an object is a row of metrics."""
    numbers = [row["loss"], *row["level_loss"]]
    return type(row["step"]) is int and all(number is None or isinstance(number, int | float) for number in numbers)


class Logger(Protocol):
    """A further destination of metrics and sample grids."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write the numbers of one step."""

    def write_image(self, step: int, name: str, image: Image.Image) -> None:
        """Write an image of one step."""

    def close(self) -> None:
        """Flush."""


def check_loggers(workdir: Path, *, tensorboard: bool, wandb: bool) -> None:
    """Raise UserError if the package of a logger is missing, or if a logger cannot write to the workdir."""
    for enabled, name, package in ((tensorboard, "tensorboard", "tensorboardX"), (wandb, "wandb", "wandb")):
        try:
            if enabled:
                importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"--config.train.{name}=True: needs pip install {package}") from error
    if tensorboard and not is_local(workdir):
        raise UserError(f"--config.train.tensorboard=True: needs a --workdir on this machine, not {workdir}")


class TensorBoard:
    """TensorBoard events in workdir/tensorboard; those after the resumed step are replaced."""

    def __init__(self, workdir: Path, resumed_step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write the numbers of one step."""
        for name, value in _numbers(values):
            self._writer.add_scalar(name, value, step)

    def write_image(self, step: int, name: str, image: Image.Image) -> None:
        """Write an image of one step."""
        self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, which a resumed run continues; its project is $WANDB_PROJECT.

    The id of the run is kept in workdir/wandb_run. Its local files are in $WANDB_DIR, by default in workdir/wandb.
    """

    def __init__(self, workdir: Path, resumed_step: int) -> None:
        del resumed_step  # W&B ignores steps that it already has
        import wandb

        record = workdir / "wandb_run"
        if not record.exists():
            write_atomically(record, secrets.token_hex(4))
        folder = None if "WANDB_DIR" in os.environ or not is_local(workdir) else str(workdir)
        self._run = wandb.init(id=record.read_text(), resume="allow", name=workdir.name, dir=folder)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write the numbers of one step."""
        self._run.log(dict(_numbers(values)), step=step)

    def write_image(self, step: int, name: str, image: Image.Image) -> None:
        """Write an image of one step."""
        import wandb

        self._run.log({name: wandb.Image(image)}, step=step)

    def close(self) -> None:
        """Flush."""
        self._run.finish()


def _numbers(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, list):
            yield from ((f"{name}/{i}", number) for i, number in enumerate(value) if number is not None)
        elif value is not None:
            yield name, value


class Profile:
    """A trace of some training steps for TensorBoard or Perfetto, in workdir/profile.

    Args:
        steps: "FIRST:LAST", the first and the last step, or "" for no trace.
        workdir: directory of the run.

    Raises:
        UserError: `steps` has another form.
    """

    def __init__(self, steps: str, workdir: Path) -> None:
        first, _, last = steps.partition(":")
        digits = all(re.fullmatch("[0-9]{1,12}", step) for step in (first, last))
        if steps and not (digits and 1 <= int(first) <= int(last)):
            raise UserError(
                f"--profile={paths.printable(steps)}: give the first and the last step, such as --profile=10:12"
            )
        self.first, self.last = (int(first), int(last)) if steps else (0, 0)
        self.directory = workdir / "profile"
        self._tracing = False

    def before(self, step: int, num_steps: int = 1) -> None:
        """Start the trace if the call of `num_steps` steps that ends with `step` contains one of its steps."""
        if self.first <= step and step - num_steps < self.last and not self._tracing:
            self._tracing, self.first = True, step - num_steps + 1
            jax.profiler.start_trace(str(self.directory))

    def after(self, step: int, results: Any) -> bool:
        """Stop the trace after its last step, as soon as `results` are computed; return whether it was written."""
        if not self._tracing or step < self.last:
            return False
        jax.block_until_ready(results)
        self.close()
        return True

    def close(self) -> None:
        """Stop the trace and write it."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing, self.last = False, 0
