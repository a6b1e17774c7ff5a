"""Loss of held-out images: at training times, and per noise level."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import losses
from score_sde_jax.diffusion.losses import NUM_BINS
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.tasks.task import InputArrays, LevelCurves, Measure, MeasureSetup, Picture, Rows, plus_minus

GOLDEN = 2654435769
"""2^32 over the golden ratio: its multiples, modulo 2^32, are evenly spread."""


def held_out_loss(setup: MeasureSetup, *, draws: int) -> Measure:
    """Return the measure of the loss at random training times and at evenly spread noise levels.

    For a classifier it measures the accuracy too, at the same noise levels and at the smallest noise. The noise of an
    image depends on key and index alone.

    Args:
        setup: the run.
        draws: number of training times, and of noise levels, per image, >= 1.
    """
    accuracy = setup.log_probabilities is not None

    def lines(summary: Mapping[str, Any], num_images: int) -> list[str]:
        text = [f"{plus_minus(summary)} over {num_images:,} images, {draws} draws"]
        if accuracy:
            shares = [plus_minus(summary[key]) for key in ("accuracy", "accuracy_all_levels")]
            text.append(f"accuracy {shares[0]} at the smallest noise, {shares[1]} over evenly spread noise levels")
        return text

    return Measure(
        name="loss",
        rows=_rows(setup, draws),
        summary=lambda columns, num_images: loss_summary(columns),
        lines=lines,
        pictures=_pictures,
        purpose=1,
        training=True,
    )


def _rows(setup: MeasureSetup, draws: int) -> Rows:
    sde, pixels, held_out_loss = setup.sde, setup.pixels, setup.held_out_loss

    def rows(params: PyTree, indices: Array, key: Array, inputs: InputArrays) -> dict[str, Array]:
        keys, offset = prng.per_image(key, indices), _spread(indices)

        def draw(number: Array) -> dict[str, Array]:
            key_noise, key_loss, key_level = prng.split(prng.fold_in(keys, number), 3)
            stored = inputs["image"]
            x0 = pixels.dequantized(key_noise, stored) if pixels.dequantize else pixels.scaled(stored)
            batch = {**inputs, "image": x0}
            t = times_of_levels(sde, (number + offset) / draws, setup.num_levels)

            def at_t(sde: SDE, keys: Array) -> Array:
                del sde, keys
                return t

            def correct(t: Array) -> Array:
                assert setup.log_probabilities is not None
                log_probabilities = setup.log_probabilities(params)
                return losses.correctly_classified(log_probabilities, sde, key_level, x0, batch["label"], t)

            answers = {}
            if setup.log_probabilities is not None:
                answers = {"level_right": correct(prng.bcast(t, x0)), "right": correct(jnp.asarray(sde.t_min))}
            return {
                "loss": held_out_loss(params, key_loss, batch),
                "level": losses.normalized_log_nsr(sde, key_level, times=at_t),
                "level_loss": held_out_loss(params, key_level, batch, at_t),
                **answers,
            }

        return jax.tree.map(lambda rows: rows.T, jax.lax.map(draw, jnp.arange(draws)))

    return rows


def _spread(indices: Array) -> Float[Array, " batch"]:
    """Return a number in [0, 1) per index, evenly spread over any range of indices."""
    return (indices.astype(jnp.uint32) * jnp.uint32(GOLDEN) >> 8).astype(jnp.float32) / 2**24


def times_of_levels(sde: SDE, levels: Float[Array, " batch"], num_levels: int | None) -> Float[Array, " batch"]:
    """Return the times of noise levels.

    Args:
        sde: forward diffusion.
        levels: noise levels in [0, 1), uniform in log(sigma / alpha) from the smallest to the largest noise.
        num_levels: number of discrete noise levels, to which `levels` are rounded down; None for continuous time.
    """
    if num_levels is not None:
        return sde.t_min + (sde.t_max - sde.t_min) * jnp.floor(levels * num_levels) / (num_levels - 1)
    return sde.time_at(levels)


# ------------------------------------------------------------------------- summary


def loss_summary(columns: Mapping[str, list], num_bins: int = NUM_BINS) -> dict[str, Any]:
    """Summarize the rows of `held_out_loss`.

    Args:
        columns: columns of the rows.
        num_bins: bins of noise levels, from the smallest to the largest noise.

    Returns:
        Mean loss at training times and per bin, with standard errors; None for a bin without a level. For a classifier
        also the accuracy at the smallest noise, over all levels, and per bin.
    """
    loss = floats(columns["loss"])
    bins = np.clip(np.floor(floats(columns["level"]) * num_bins).astype(int), 0, num_bins - 1)
    in_bins = [floats(columns["level_loss"])[bins == number] for number in range(num_bins)]
    answers: dict[str, Any] = {}
    if "right" in columns:
        level_right = floats(columns["level_right"])
        answers = {
            "accuracy": _mean(floats(columns["right"]).mean(axis=1)),
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


def _pictures(
    summaries: Mapping[str, Mapping[str, Any]], columns: Mapping[str, Mapping[str, list]]
) -> dict[str, Picture]:
    del columns
    curves = {name.replace("_", " "): summary["level_loss"] for name, summary in summaries.items()}
    return {"level_loss.png": LevelCurves(curves, "loss per noise level")}


def _mean(values: np.ndarray) -> dict[str, float | None]:
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": number_or_none(values.mean() if len(values) else None), "standard_error": number_or_none(error)}


def floats(values: list) -> np.ndarray:
    """Return an array with NaN for None."""
    return np.array(values, float)


def number_or_none(value: Any) -> float | None:
    """Return a float; None for a masked, missing or non-finite value."""
    if value is None or np.ma.is_masked(value) or not math.isfinite(value):
        return None
    return float(value)
