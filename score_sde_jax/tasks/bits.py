"""Bits per dimension of held-out images under the probability flow ODE."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.likelihood import Divergence, log_likelihood
from score_sde_jax.diffusion.likelihood import bits_per_dim as bits
from score_sde_jax.tasks.loss import floats, number_or_none
from score_sde_jax.tasks.task import Given, Histogram, Measure, Measured, Picture, Rows, plus_minus

BITS, NATS = "bits_per_dim", "nats_per_dim"
"""Names of the measure; nats, of the density itself, for continuous data."""
MANY_DIMENSIONS = 256
"""An exact divergence of more dimensions than this is worth a warning."""


def bits_per_dim(
    measured: Measured,
    *,
    divergence: Divergence,
    num_probes: int,
    rtol: float,
    atol: float,
    t_min: float | None,
    max_evaluations: int,
    repeats: int,
) -> Measure:
    """Bits per dimension of each image, or nats for continuous data, `repeats` times; see `log_likelihood`.

    Columns: the value, the standard error of its estimate, NFE, and whether the solver converged. The noise of an image
    is a function of key, repeat and index alone.
    """
    continuous = measured.pixels.levels is None
    options = dict(divergence=divergence, num_probes=num_probes, rtol=rtol, atol=atol, max_evaluations=max_evaluations)
    name, label = (NATS, "nats/dim") if continuous else (BITS, "bits/dim")

    def pictures(
        summaries: Mapping[str, Mapping[str, Any]], columns: Mapping[str, Mapping[str, list]]
    ) -> dict[str, Picture]:
        values = np.array([value for value in columns[name]["value"] if value is not None])
        return {f"{name}.png": Histogram(values, label)} if len(values) else {}

    return Measure(
        name=name,
        rows=_rows(measured, {**options, "t_start": t_min}),
        summary=likelihood_summary,
        lines=lambda summary, num_images: _lines(summary, num_images, label),
        pictures=pictures,
        purpose=0,
        repeats=repeats,
        notes=tuple(_notes(measured, divergence)),
    )


def _rows(measured: Measured, options: Mapping[str, Any]) -> Rows:
    pixels = measured.pixels

    def rows(params: PyTree, indices: Array, key: Array, given: Given) -> dict[str, Array]:
        keys = jax.vmap(jax.random.fold_in)(prng.per_image(key, indices), given["repeat"])
        key_noise, key_probes = prng.split(keys, 2)
        x0 = given["image"] if pixels.levels is None else pixels.dequantized(key_noise, given["image"])
        with jax.default_matmul_precision("highest"):  # accelerators round the factors of a product otherwise
            likelihood = log_likelihood(measured.sde, measured.noise_fn(params), key_probes, x0, **options)
        dim = math.prod(x0.shape[1:])
        value, unit = -likelihood.log_likelihood / dim, 1 / dim
        if pixels.levels is not None:
            value = bits(likelihood.log_likelihood, dim, pixels.levels, pixels.ends)
            unit = 1 / (dim * math.log(2))
        return {
            "value": value,
            "standard_error": unit * likelihood.standard_error,
            "evaluations": likelihood.nfe,
            "converged": likelihood.converged,
        }

    return rows


def _notes(measured: Measured, divergence: Divergence) -> list[str]:
    dim, notes = math.prod(measured.image_shape), []
    if measured.pixels.levels is None:
        notes.append(f"note: {measured.name} are continuous, so this is -log p / {dim} in nats, without dequantization")
    if measured.level_index:
        notes.append(
            "note: the network is conditioned on the nearest noise level, so the flow jumps, and takes many evaluations"
        )
    if divergence == "exact" and dim > MANY_DIMENSIONS:
        notes.append(
            f"note: an exact divergence takes {dim:,} derivatives at every evaluation of the network; "
            "--config.eval.divergence=rademacher takes --config.eval.num_probes"
        )
    return notes


def _lines(summary: Mapping[str, Any], num_images: int, label: str) -> list[str]:
    said = [
        f"{label} {plus_minus(summary)} over {num_images:,} images, {summary['repeats']} times; NFE "
        f"{summary['evaluations_mean']:,.1f} on average, {summary['evaluations_max']:,} at most"
    ]
    if summary["not_converged"]:
        named = ", ".join(f"{image} (repeat {repeat})" for repeat, image in summary["not_converged_images"][:10])
        said.append(
            f"warning: the solver failed on {summary['not_converged']} of {num_images * summary['repeats']:,}, which "
            f"are left out: images {named}; look at --config.eval.max_evaluations, rtol and atol"
        )
    return said


def likelihood_summary(columns: Mapping[str, list], num_images: int) -> dict[str, Any]:
    """Mean over the images, with standard errors, of the column "value" of whole repeats over them.

    standard_error: of the mean, from the spread over images, whatever it comes from; standard_error_noise: the part of
    it that dequantization and probes have, from the spread over repeats; standard_error_probes: the part of the probes
    alone, from their own spread. None if nothing tells. Images whose solver failed are counted, named as [repeat,
    image], and left out.
    """
    by_image = floats(columns["value"]).reshape(-1, num_images)
    values = np.ma.masked_invalid(by_image)
    repeats, evaluations = len(by_image), np.array(columns["evaluations"])
    image_means = values.mean(axis=0)
    num = max(1, image_means.count())
    noise = None if repeats == 1 else np.ma.sqrt((values.var(axis=0, ddof=1) / values.count(axis=0)).sum()) / num
    probes = np.sqrt(
        (floats(columns["standard_error"]).reshape(by_image.shape)[~np.ma.getmaskarray(values)] ** 2).sum()
    )
    failed = np.argwhere(np.ma.getmaskarray(values))
    return {
        "mean": number_or_none(image_means.mean()),
        "standard_error": number_or_none(image_means.std(ddof=1) / math.sqrt(num)),
        "standard_error_noise": number_or_none(noise),
        "standard_error_probes": number_or_none(probes / max(1, values.count())),
        "min": number_or_none(values.min()),
        "max": number_or_none(values.max()),
        "num_images": num_images,
        "repeats": repeats,
        "evaluations_mean": float(evaluations.mean()),
        "evaluations_max": int(evaluations.max()),
        "not_converged": len(failed),
        "not_converged_images": failed.tolist(),
    }
