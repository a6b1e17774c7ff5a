"""Results of numbered images in a file, completed batch by batch where an earlier call stopped, and summed up."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from score_sde_jax.devices.machine import num_devices
from score_sde_jax.devices.processes import is_first
from score_sde_jax.runs.reporting import Progress, Say, is_local, write_atomically


class Rows:
    """Columns of results of the images number 0, 1, ..., in a file of one JSON object a line for every batch.

    A last line that a kill cut short is dropped. Real numbers keep all digits of float32; one that is not finite is
    None.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lines, self.columns = path, list[str](), dict[str, list]()
        text = path.read_text() if path.exists() else ""
        for line in text.splitlines():
            try:
                self._take(json.loads(line))
            except json.JSONDecodeError:
                break
            self._lines.append(line + "\n")
        if is_first() and text != "".join(self._lines):
            write_atomically(path, "".join(self._lines))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Add the results of the images that follow, and write them."""
        row = {key: jax.tree.map(_plain, values.tolist()) for key, values in columns.items()}
        self._take(row)
        self._lines.append(json.dumps(row) + "\n")
        if not is_first():
            return
        if is_local(self.path):
            with self.path.open("a") as file:
                file.write(self._lines[-1])
        else:
            self.path.write_text("".join(self._lines))

    def _take(self, row: dict[str, list]) -> None:
        for key, values in row.items():
            self.columns.setdefault(key, []).extend(values)


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.9g}") if math.isfinite(value) else None


def complete(
    rows: Rows,
    total: int,
    batch_size: int,
    measure: Callable[[np.ndarray], Mapping[str, Array]],
    say: Say,
    what: str,
) -> None:
    """Measure what is missing up to `total` images, with progress; `measure` gets numbers that the devices share
    equally.
    """
    devices = num_devices()
    batch_size = -(-batch_size // devices) * devices
    progress = Progress(len(rows), total)
    while len(rows) < total:
        first = len(rows)
        num = min(batch_size, total - first)
        numbers = np.minimum(first + np.arange(batch_size), total - 1)  # the last batch is filled up, then cut
        found = jax.tree.map(np.asarray, dict(measure(numbers)))
        rows.append({key: values[:num] for key, values in found.items()})
        speed, left = progress.report(len(rows))
        say(f"{what} {len(rows):,}/{total:,}  {speed:.3g} images/s  {left} left")


# ------------------------------------------------------------------------- what they amount to


def likelihood_summary(columns: Mapping[str, list], num_images: int) -> dict[str, Any]:
    """Mean over the images, with standard errors, of the column "value" of whole repeats over them.

    standard_error: of the mean, from the spread over images, whatever it comes from; standard_error_noise: the part of
    it that dequantisation and probes have, from the spread over repeats; standard_error_probes: the part of the probes
    alone, from their own spread. None where nothing tells. Images whose solver did not get to the end are counted,
    named as [repeat, image], and left out.
    """
    by_image = _floats(columns["value"]).reshape(-1, num_images)
    values = np.ma.masked_invalid(by_image)
    repeats, evaluations = len(by_image), np.array(columns["evaluations"])
    image_means = values.mean(axis=0)
    num = max(1, image_means.count())
    noise = None if repeats == 1 else np.ma.sqrt((values.var(axis=0, ddof=1) / values.count(axis=0)).sum()) / num
    probes = np.sqrt(
        (_floats(columns["standard_error"]).reshape(by_image.shape)[~np.ma.getmaskarray(values)] ** 2).sum()
    )
    failed = np.argwhere(np.ma.getmaskarray(values))
    return {
        "mean": _number(image_means.mean()),
        "standard_error": _number(image_means.std(ddof=1) / math.sqrt(num)),
        "standard_error_noise": _number(noise),
        "standard_error_probes": _number(probes / max(1, values.count())),
        "min": _number(values.min()),
        "max": _number(values.max()),
        "num_images": num_images,
        "repeats": repeats,
        "evaluations_mean": float(evaluations.mean()),
        "evaluations_max": int(evaluations.max()),
        "not_converged": len(failed),
        "not_converged_images": failed.tolist(),
    }


def loss_summary(columns: Mapping[str, list], num_bins: int) -> dict[str, Any]:
    """Mean loss at the times of training, and at the noise levels of each bin, from the smallest to the largest noise,
    with standard errors; None in a bin that no level of a ladder is in. Of a classifier also the shares that it gets
    right: at the smallest noise, at all levels alike, and at the levels of each bin.
    """
    loss = _floats(columns["loss"])
    bins = np.clip(np.floor(_floats(columns["level"]) * num_bins).astype(int), 0, num_bins - 1)
    in_bins = [_floats(columns["level_loss"])[bins == number] for number in range(num_bins)]
    answers: dict[str, Any] = {}
    if "right" in columns:
        level_right = _floats(columns["level_right"])
        answers = {
            "accuracy": _mean(_floats(columns["right"]).mean(axis=1)),
            "accuracy_all_levels": _mean(level_right.mean(axis=1)),
            "level_accuracy": [_mean(level_right[bins == number])["mean"] for number in range(num_bins)],
        }
    return {
        **_mean(loss.mean(axis=1)),
        "level_loss": [_mean(each)["mean"] for each in in_bins],
        "level_loss_standard_error": [_mean(each)["standard_error"] for each in in_bins],
        "num_images": len(loss),
        **answers,
    }


def _mean(values: np.ndarray) -> dict[str, float | None]:
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": _number(values.mean() if len(values) else None), "standard_error": _number(error)}


def _floats(values: list) -> np.ndarray:
    return np.array(values, float)  # None becomes nan


def _number(value: Any) -> float | None:
    """A float, or None for what is masked, missing or not finite."""
    if value is None or np.ma.is_masked(value) or not math.isfinite(value):
        return None
    return float(value)
