"""Pictures of a run: sample grids, intermediate samples as a GIF, loss curves, points with their score field."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import Image

from score_sde_jax.runs.records import write_atomically
from score_sde_jax.tasks.task import Grid, Histogram, LevelCurves, Picture, Strips

MIN_TILE = 32
"""Smallest side of a tile, in pixels; smaller images are enlarged by a whole factor."""


def render(picture: Picture) -> Image.Image:
    """Return the image of a picture that a task or a measure describes."""
    return _RENDERERS[type(picture)](*picture)


def grid(images: UInt8[np.ndarray, "num height width channels"], columns: int | None = None) -> Image.Image:
    """Return all images in rows, one pixel apart on white; by default the grid is nearly square."""
    return _picture(_tile(_zoom(images), columns or math.ceil(math.sqrt(len(images))), gap=1))


def strips(images: UInt8[np.ndarray, "num length height width channels"], columns: int | None = None) -> Image.Image:
    """Return strips of images side by side; by default the grid of strips is nearly square."""
    num, length = images.shape[:2]
    tiles = np.stack([_tile(_zoom(strip), length, gap=1) for strip in images])
    return _picture(_tile(tiles, columns or math.ceil(math.sqrt(num / length)), gap=3))


def _zoom(images: UInt8[np.ndarray, "num height width channels"]) -> UInt8[np.ndarray, "num rows columns channels"]:
    zoom = max(1, -(-MIN_TILE // max(images.shape[1:3])))
    return images.repeat(zoom, 1).repeat(zoom, 2)


def _tile(
    tiles: UInt8[np.ndarray, "num height width channels"], columns: int, gap: int
) -> UInt8[np.ndarray, "rows columns channels"]:
    """Return tiles in rows on white, with a gap around each."""
    num, height, width, channels = tiles.shape
    rows = math.ceil(num / columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def _picture(canvas: UInt8[np.ndarray, "rows columns channels"]) -> Image.Image:
    return Image.fromarray(canvas[..., 0] if canvas.shape[-1] == 1 else canvas)


def save_png(path: Path, image: Image.Image) -> None:
    """Write a PNG."""
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    write_atomically(path, data.getvalue())


def save_gif(path: Path, frames: Sequence[Image.Image], seconds: float = 4.0) -> None:
    """Write a GIF that lasts `seconds`, then shows its last frame for two more seconds."""
    data = io.BytesIO()
    each = max(20, int(1000 * seconds / len(frames)))
    durations = [each] * (len(frames) - 1) + [2000]
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    write_atomically(path, data.getvalue())


def loss_curve(rows: Sequence[dict[str, Any]]) -> Image.Image:
    """Return the training loss over the steps, logged and smoothed, and the loss of each bin of noise levels."""
    figure, axes = _figure(9.6, 4.0, columns=2)
    axes[0].set(xlabel="step", ylabel="loss")
    axes[1].set(xlabel="step", ylabel="loss per noise level")
    if not rows:  # a first checkpoint before the first logged step
        return _to_image(figure)
    steps, loss = [row["step"] for row in rows], np.array([row["loss"] for row in rows], dtype=float)
    axes[0].plot(steps, loss, color="tab:blue", alpha=0.3, label="as logged")
    if len(loss) > 10:
        width = max(3, len(loss) // 20)
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
        axes[0].plot(steps[width - 1 :], smooth, color="tab:blue", label=f"mean of {width}")
        axes[0].legend()
    _log_scale(axes[0], loss)
    levels = np.array([row["level_loss"] for row in rows], dtype=float)  # None becomes nan, a gap in the curve
    from matplotlib import colormaps

    last = levels.shape[1] - 1
    for i, level in enumerate(levels.T):
        label = {0: "smallest noise", last: "largest noise"}.get(i)
        axes[1].plot(steps, level, color=colormaps["viridis"](i / max(last, 1)), label=label, linewidth=1)
    axes[1].legend()
    _log_scale(axes[1], levels)
    return _to_image(figure)


def _log_scale(axes: Any, values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > 10 * finite.min():
        axes.set_yscale("log")


def points(samples: Num[np.ndarray, "num 2"], title: str = "") -> Image.Image:
    """Return a scatter plot of points in the plane."""
    figure, axes = _figure(5.0, 5.0)
    axes.scatter(samples[:, 0], samples[:, 1], s=2, alpha=0.5, color="tab:blue", linewidths=0)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=title)
    return _to_image(figure)


def score_field(
    samples: Num[np.ndarray, "num 2"],
    at: Float[np.ndarray, "cells 2"],
    score: Float[np.ndarray, "cells 2"],
    sigma: float,
) -> Image.Image:
    """Return a plot of samples and of the score at the points of a grid."""
    figure, axes = _figure(6.0, 6.0)
    axes.scatter(samples[:, 0], samples[:, 1], s=2, alpha=0.3, color="tab:blue", linewidths=0)
    axes.quiver(at[:, 0], at[:, 1], score[:, 0], score[:, 1], color="tab:red", width=0.003)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=f"samples and the score at sigma = {sigma:.3g}")
    return _to_image(figure)


def _figure(width: float, height: float, columns: int = 1):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100)
    margins = {"left": 0.8 / width, "right": 1 - 0.15 / width, "bottom": 0.55 / height, "top": 1 - 0.35 / height}
    return figure, figure.subplots(1, columns, gridspec_kw={**margins, "wspace": 0.28})


def _to_image(figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def histogram(values: Float[np.ndarray, " num"], label: str) -> Image.Image:
    """Return a histogram of values, with their mean."""
    figure, axes = _figure(6.0, 4.0)
    axes.hist(values, bins=min(50, max(5, math.isqrt(len(values)))), color="tab:blue", alpha=0.7)
    axes.axvline(values.mean(), color="tab:red", label=f"mean {values.mean():.4g}")
    axes.set(xlabel=label, ylabel="images")
    axes.legend()
    return _to_image(figure)


def level_curves(curves: Mapping[str, Sequence[float | None]], label: str) -> Image.Image:
    """Return a plot of values per bin of noise levels, from the smallest to the largest noise, without None."""
    figure, axes = _figure(6.0, 4.0)
    for name, values in curves.items():
        curve = np.array(values, dtype=float)
        at = (np.arange(len(curve)) + 0.5) / len(curve)
        axes.plot(at[np.isfinite(curve)], curve[np.isfinite(curve)], marker="o", label=name)
    axes.set(xlabel="noise level, from the smallest to the largest in log sigma / alpha", ylabel=label)
    _log_scale(axes, np.concatenate([np.array(values, dtype=float) for values in curves.values()]))
    axes.legend()
    return _to_image(figure)


_RENDERERS: dict[type, Any] = {Grid: grid, Strips: strips, Histogram: histogram, LevelCurves: level_curves}
