"""The loss of held-out images: at the times of training, and at every noise level."""

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
from score_sde_jax.tasks.task import Given, LevelCurves, Measure, Measured, Picture, Rows, plus_minus

GOLDEN = 2654435769
"""2^32 over the golden ratio: its multiples, modulo 2^32, spread evenly."""


def held_out_loss(measured: Measured, *, draws: int) -> Measure:
    """The loss of each image at `draws` times as in training, and at as many noise levels that visit all alike.

    Of a classifier also whether it is right at each level, and at the smallest noise. The noise of an image is a
    function of key and index alone.
    """
    accuracy = measured.log_probabilities is not None

    def lines(summary: Mapping[str, Any], num_images: int) -> list[str]:
        said = [f"{plus_minus(summary)} over {num_images:,} images, {draws} draws"]
        if accuracy:
            shares = [plus_minus(summary[key]) for key in ("accuracy", "accuracy_all_levels")]
            said.append(f"accuracy {shares[0]} at the smallest noise, {shares[1]} over all noise levels alike")
        return said

    return Measure(
        name="loss",
        rows=_rows(measured, draws),
        summary=lambda columns, num_images: loss_summary(columns),
        lines=lines,
        pictures=_pictures,
        purpose=1,
        training=True,
    )


def _rows(measured: Measured, draws: int) -> Rows:
    sde, pixels, held_out_loss = measured.sde, measured.pixels, measured.held_out_loss

    def rows(params: PyTree, indices: Array, key: Array, given: Given) -> dict[str, Array]:
        keys, offset = prng.per_image(key, indices), _spread(indices)

        def draw(number: Array) -> dict[str, Array]:
            key_noise, key_loss, key_level = prng.split(prng.fold_in(keys, number), 3)
            stored = given["image"]
            x0 = pixels.dequantized(key_noise, stored) if pixels.dequantize else pixels.scaled(stored)
            batch = {**given, "image": x0}
            t = times_of_levels(sde, (number + offset) / draws, measured.num_levels)

            def at_t(sde: SDE, keys: Array) -> Array:
                del sde, keys
                return t

            def right(t: Array) -> Array:
                assert measured.log_probabilities is not None
                log_probabilities = measured.log_probabilities(params)
                return losses.correctly_classified(log_probabilities, sde, key_level, x0, batch["label"], t)

            answers = {}
            if measured.log_probabilities is not None:
                answers = {"level_right": right(prng.bcast(t, x0)), "right": right(jnp.asarray(sde.t_min))}
            return {
                "loss": held_out_loss(params, key_loss, batch),
                "level": losses.normalized_log_nsr(sde, key_level, times=at_t),
                "level_loss": held_out_loss(params, key_level, batch, at_t),
                **answers,
            }

        return jax.tree.map(lambda rows: rows.T, jax.lax.map(draw, jnp.arange(draws)))

    return rows


def _spread(indices: Array) -> Float[Array, " batch"]:
    """A number in [0, 1) for each index, evenly spread over any range of indices."""
    return (indices.astype(jnp.uint32) * jnp.uint32(GOLDEN) >> 8).astype(jnp.float32) / 2**24


def times_of_levels(sde: SDE, levels: Float[Array, " batch"], num_levels: int | None) -> Float[Array, " batch"]:
    """Times of noise levels from 0 to below 1, even in log sigma / alpha; with `num_levels`, of the ladder's steps."""
    if num_levels is not None:
        return sde.t_min + (sde.t_max - sde.t_min) * jnp.floor(levels * num_levels) / (num_levels - 1)
    return sde.time_at(levels)


# ------------------------------------------------------------------------- what it amounts to


def loss_summary(columns: Mapping[str, list], num_bins: int = NUM_BINS) -> dict[str, Any]:
    """Mean loss at the times of training, and in each bin of noise levels from the smallest to the largest noise.

    With standard errors; None in a bin that no level of a ladder is in. Of a classifier also the shares that it gets
    right: at the smallest noise, at all levels alike, and at the levels of each bin.
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
    """An array in which None is nan."""
    return np.array(values, float)


def number_or_none(value: Any) -> float | None:
    """A float, or None for what is masked, missing or not finite."""
    if value is None or np.ma.is_masked(value) or not math.isfinite(value):
        return None
    return float(value)
