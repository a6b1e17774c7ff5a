"""Metrics of the steps since the last report, which a checkpoint keeps so that a resumed run reports the same."""

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
        """Add those of the steps of one call, without waiting for them."""
        self._calls.append(metrics)

    def require_finite(self, max_skipped: int) -> StepMetrics | None:
        """Metrics of every step since the last report, stacked; None where there is none.

        Raises UserError naming the first step that was left out beyond the `max_skipped` that may be.
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
                "optimizer.gradient_clip=1.0, or leave out up to N such updates with train.max_skipped=N (now "
                f"{max_skipped})"
            )
        return metrics

    def report(self, max_skipped: int) -> dict[str, Any]:
        """Means over the steps since the last report, of the finite ones, and start again.

        `level_loss` has the mean loss of each bin of noise levels, from the smallest noise to the largest, None where
        none fell into it.
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
        """Mean loss of the steps reported since the last save, None where there are none, and start again."""
        losses, self._losses = self._losses, []
        return _mean(losses) if losses else None

    def to_json(self) -> dict[str, Any]:
        """Everything, so that `from_json` gives the same window bit by bit."""
        metrics = self._stacked()
        columns = {} if metrics is None else {name: array.tolist() for name, array in metrics._asdict().items()}
        return {"step": self.step, "losses": self._losses, "metrics": columns}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Window":
        """The window that `to_json` described."""
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
