"""What a run tells while it runs: a progress line, metrics.jsonl, and TensorBoard where asked for."""

import json
import os
import time
from pathlib import Path
from typing import Any

from score_sde_jax.errors import UserError


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a run that is killed, sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    temporary.replace(path)


class Progress:
    """Speed since the last report, and the time left at the average speed since the start."""

    def __init__(self, done: int, total: int) -> None:
        self.first = self.last = done
        self.total = total
        self.start = self.since = time.monotonic()
        self.elsewhere = 0.0

    def exclude(self, seconds: float) -> None:
        """Leave time spent on something else, such as a preview, out of the next speed."""
        self.elsewhere += seconds

    def report(self, done: int) -> tuple[float, str]:
        """Units done a second since the last report, and the time left as h:mm:ss."""
        now = time.monotonic()
        speed = (done - self.last) / max(now - self.since - self.elsewhere, 1e-9)
        average = (done - self.first) / max(now - self.start, 1e-9)
        self.last, self.since, self.elsewhere = done, now, 0.0
        return speed, duration((self.total - done) / max(average, 1e-9))


class MetricsLog:
    """metrics.jsonl, one JSON object a line and every step once, and TensorBoard events beside it.

    A run that resumes from an earlier step drops the lines that it is about to write again.
    """

    def __init__(self, workdir: Path, resumed_step: int, tensorboard: bool) -> None:
        self.path = workdir / "metrics.jsonl"
        kept = [row for row in read_metrics(self.path) if row["step"] <= resumed_step]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._events = _tensorboard_writer(workdir / "tensorboard", resumed_step) if tensorboard else None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append the values of one step."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._events:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the events."""
        if self._events:
            self._events.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.jsonl; a last line that a kill cut short is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _tensorboard_writer(directory: Path, resumed_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("config.train.tensorboard=True needs: pip install 'score-sde-jax[tensorboard]'") from error
    return SummaryWriter(str(directory), purge_step=resumed_step + 1)
