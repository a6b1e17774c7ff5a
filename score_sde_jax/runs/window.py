"""Metrics of the steps since the last report, which checkpoints store so that a resumed run reports the same."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from score_sde_jax.errors import UserError
from score_sde_jax.runs.step import StepMetrics

MEANS = ("loss", "grad_norm", "param_norm", "update_norm")


class Window:
    """Metrics of every step since the last report, and the losses since the last save."""

    def __init__(self, step: int) -> None:
        self.step = step  # of the last report
        self._calls: list[StepMetrics] = []
        self._losses: list[float] = []

    def append(self, metrics: StepMetrics) -> None:
        """Add the metrics of the steps of one call, without waiting for the device."""
        self._calls.append(metrics)

    def require_finite(self, max_skipped: int) -> StepMetrics | None:
        """Return the stacked metrics of every step since the last report; None if there is none.

        Args:
            max_skipped: number of skipped updates that the run may have.

        Raises:
            UserError: more updates were skipped; the message names the first of them.
        """
        metrics = self._stacked()
        if metrics is None:
            return None
        beyond = np.flatnonzero(metrics.skipped > max_skipped)
        if len(beyond):
            bad = beyond[0]
            raise UserError(
                f"step {self.step + 1 + bad}: loss {metrics.loss[bad]} and gradient norm {metrics.grad_norm[bad]} are "
                "not finite; the last checkpoint is from before; try a lower optimizer.learning_rate or "
                "optimizer.gradient_clip=1.0, or skip up to N such updates with train.max_skipped=N (now "
                f"{max_skipped})"
            )
        return metrics

    def report(self, max_skipped: int) -> dict[str, Any]:
        """Return means over the finite steps since the last report, and start a new window.

        `level_loss` has the mean loss of each bin of noise levels, from the smallest to the largest noise; None for an
        empty bin.
        """
        metrics = self.require_finite(max_skipped)
        assert metrics is not None, "a report without a step"
        finite = np.isfinite(metrics.loss) & np.isfinite(metrics.grad_norm)
        means: dict[str, Any] = {name: _mean(getattr(metrics, name)[finite]) for name in MEANS}
        sums, counts = (array[finite].sum(0, np.float64) for array in (metrics.level_loss, metrics.level_count))
        means["level_loss"] = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
        means["skipped"] = int(metrics.skipped[-1])
        self._losses += metrics.loss[finite].tolist()
        self.step += len(finite)
        self._calls = []
        return means

    def loss_since_save(self) -> float | None:
        """Return the mean loss of the steps reported since the last save; None if there are none."""
        losses, self._losses = self._losses, []
        return _mean(losses) if losses else None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values from which `from_json` restores the same bits."""
        metrics = self._stacked()
        columns = {} if metrics is None else {name: array.tolist() for name, array in metrics._asdict().items()}
        return {"step": self.step, "losses": self._losses, "metrics": columns}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Window":
        """Return the window of a result of `to_json`."""
        window = cls(saved["step"])
        window._losses = list(saved["losses"])
        if saved["metrics"]:
            columns: dict[str, Any] = {
                name: np.asarray(column, np.int32 if name == "skipped" else np.float32)
                for name, column in saved["metrics"].items()
            }
            window.append(StepMetrics(**columns))
        return window

    def _stacked(self) -> StepMetrics | None:
        if not self._calls:
            return None
        columns: Any = zip(*self._calls, strict=True)
        stacked: Any = [np.concatenate([np.asarray(part) for part in column]) for column in columns]
        return StepMetrics(*stacked)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else math.nan
