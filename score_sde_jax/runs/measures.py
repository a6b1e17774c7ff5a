"""What is measured of images under a network, as pure functions with one row of results for every image."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from score_sde_jax import keys as prng
from score_sde_jax.data import images
from score_sde_jax.diffusion import losses
from score_sde_jax.diffusion.likelihood import bits_per_dim, log_likelihood
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.runs.experiment import Experiment
from score_sde_jax.settings.sections import Evaluation

Measure = Callable[[PyTree, Any, Array, Mapping[str, Any]], dict[str, Array]]
"""(params, indices, key, given) -> columns; `given` holds the stored images and what else there is of each."""

GOLDEN = 2654435769
"""2^32 over the golden ratio: its multiples, modulo 2^32, spread evenly."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
    """How stored images become those that a network sees: number of levels (None for points), range, dequantisation in
    training.
    """

    levels: int | None
    value_range: tuple[float, float] | None
    dequantize: bool

    def scaled(self, keys: Array, stored: Array, dequantize: bool) -> Float[Array, "batch ..."]:
        """Images in their range, with uniform noise below one level where wanted; points as they are."""
        stored = stored.astype(jnp.float32)
        noise = prng.uniform(keys, stored) if dequantize else None
        return images.scale(stored, self.levels, self.value_range, noise)  # type: ignore


def likelihoods(experiment: Experiment, pixels: Pixels, options: Evaluation) -> Measure:
    """(params, indices, key, given) -> bits that a number of each image takes, or nats where there are no levels, the
    standard error of its estimate, evaluations of the network, and whether the solver got to the end.

    `given` holds the stored images and the number of the repeat of each; the noise of an image is a function of key,
    repeat and index alone.
    """

    def measure(params: PyTree, indices: Array, key: Array, given: Mapping[str, Array]) -> dict[str, Array]:
        keys = jax.vmap(jax.random.fold_in)(prng.per_image(key, indices), given["repeat"])
        key_noise, key_probes = prng.split(keys, 2)
        x0 = pixels.scaled(key_noise, given["image"], pixels.levels is not None)
        with jax.default_matmul_precision("highest"):  # accelerators round the factors of a product otherwise
            found = log_likelihood(
                experiment.sde,
                experiment.noise_fn(params),
                key_probes,
                x0,
                divergence=options.divergence,
                num_probes=options.num_probes,
                rtol=options.rtol,
                atol=options.atol,
                t_start=options.t_min,
                max_evaluations=options.max_evaluations,
            )
        dim = math.prod(x0.shape[1:])
        value, unit = -found.log_likelihood / dim, 1 / dim
        if pixels.levels is not None:
            value = bits_per_dim(found.log_likelihood, dim, pixels.levels, pixels.value_range or (0.0, 1.0))
            unit = 1 / (dim * math.log(2))
        return {
            "value": value,
            "standard_error": unit * found.standard_error,
            "evaluations": found.evaluations,
            "converged": found.converged,
        }

    return measure


def held_out_losses(
    experiment: Experiment, pixels: Pixels, draws: int, num_levels: int | None, classifies: bool = False
) -> Measure:
    """(params, indices, key, given) -> the loss of each image at `draws` times as in training; and noise levels that
    visit all of them alike, as in `losses.noise_level`, with the loss at each.

    Where the network `classifies`, also whether it is right at each level, and at the smallest noise.
    `num_levels` is that of the ladder where the network knows no other times. `given` holds the stored images and their
    labels; the noise of an image is a function of key and index alone.
    """
    sde = experiment.sde

    def measure(params: PyTree, indices: Array, key: Array, given: Mapping[str, Array]) -> dict[str, Array]:
        keys, offset = prng.per_image(key, indices), _spread(indices)

        def draw(number: Array) -> dict[str, Array]:
            key_noise, key_loss, key_level = prng.split(prng.fold_in(keys, number), 3)
            batch = {**given, "image": pixels.scaled(key_noise, given["image"], pixels.dequantize)}
            t = times_of_levels(sde, (number + offset) / draws, num_levels)

            def at_t(sde: SDE, keys: Array) -> Array:
                del sde, keys
                return t

            def right(t: Array) -> Array:
                x0, labels = batch["image"], batch["label"]
                return losses.classified(experiment.log_probabilities(params), sde, key_level, x0, labels, t)

            answers = {}
            if classifies:
                answers = {"level_right": right(prng.bcast(t, batch["image"])), "right": right(jnp.asarray(sde.t_min))}
            return {
                "loss": experiment.held_out_loss(params, key_loss, batch),
                "level": losses.noise_level(sde, key_level, times=at_t),
                "level_loss": experiment.held_out_loss(params, key_level, batch, at_t),
                **answers,
            }

        return jax.tree.map(lambda rows: rows.T, jax.lax.map(draw, jnp.arange(draws)))

    return measure


def _spread(indices: Array) -> Float[Array, " batch"]:
    """A number in [0, 1) for each index, evenly spread over any range of indices."""
    return (indices.astype(jnp.uint32) * jnp.uint32(GOLDEN) >> 8).astype(jnp.float32) / 2**24


def times_of_levels(sde: SDE, levels: Float[Array, " batch"], num_levels: int | None) -> Float[Array, " batch"]:
    """Times of noise levels from 0 to below 1, even in log sigma / alpha; with `num_levels`, of the ladder's steps."""
    if num_levels is not None:
        return sde.t_min + (sde.t_max - sde.t_min) * jnp.floor(levels * num_levels) / (num_levels - 1)
    return sde.time_at(levels)
