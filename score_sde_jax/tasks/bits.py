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
from score_sde_jax.tasks.task import Histogram, InputArrays, Measure, MeasureSetup, Picture, Rows, plus_minus

BITS, NATS = "bits_per_dim", "nats_per_dim"
"""Names of the measure for images and for continuous data; nats are of the density itself."""
MANY_DIMENSIONS = 256
"""Dimensions above which an exact divergence gets a note."""


def bits_per_dim(
    setup: MeasureSetup,
    *,
    divergence: Divergence,
    num_probes: int,
    rtol: float,
    atol: float,
    t_min: float | None,
    max_evaluations: int,
    repeats: int,
) -> Measure:
    """Return the measure of bits per dimension of uniformly dequantized images, or nats for continuous data.

    The columns are the value, the standard error of its estimate, the NFE, and whether the solver converged. The noise
    of an image depends on key, repeat and index alone.

    Args:
        setup: the run.
        divergence: "rademacher" or "gaussian" Hutchinson probes, or "exact".
        num_probes: number of Hutchinson probes per image, >= 1.
        rtol: relative tolerance of the adaptive solver, > 0.
        atol: absolute tolerance of the adaptive solver, > 0.
        t_min: time at which the ODE ends at the data; None for t_min of the SDE.
        max_evaluations: limit of the network evaluations per image.
        repeats: measurements per image, >= 1.

    Reference: arXiv 2011.13456, Section 4.3; `log_likelihood`.
    """
    continuous = setup.pixels.levels is None
    options = dict(divergence=divergence, num_probes=num_probes, rtol=rtol, atol=atol, max_evaluations=max_evaluations)
    name, label = (NATS, "nats/dim") if continuous else (BITS, "bits/dim")

    def pictures(
        summaries: Mapping[str, Mapping[str, Any]], columns: Mapping[str, Mapping[str, list]]
    ) -> dict[str, Picture]:
        values = np.array([value for value in columns[name]["value"] if value is not None])
        return {f"{name}.png": Histogram(values, label)} if len(values) else {}

    return Measure(
        name=name,
        rows=_rows(setup, {**options, "t_start": t_min}),
        summary=likelihood_summary,
        lines=lambda summary, num_images: _lines(summary, num_images, label),
        pictures=pictures,
        purpose=0,
        repeats=repeats,
        notes=tuple(_notes(setup, divergence)),
    )


def _rows(setup: MeasureSetup, options: Mapping[str, Any]) -> Rows:
    pixels = setup.pixels

    def rows(params: PyTree, indices: Array, key: Array, inputs: InputArrays) -> dict[str, Array]:
        keys = jax.vmap(jax.random.fold_in)(prng.per_image(key, indices), inputs["repeat"])
        key_noise, key_probes = prng.split(keys, 2)
        x0 = inputs["image"] if pixels.levels is None else pixels.dequantized(key_noise, inputs["image"])
        with jax.default_matmul_precision("highest"):  # by default, accelerators round the factors of a product
            likelihood = log_likelihood(setup.sde, setup.noise_fn(params), key_probes, x0, **options)
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


def _notes(setup: MeasureSetup, divergence: Divergence) -> list[str]:
    dim, notes = math.prod(setup.image_shape), []
    if setup.pixels.levels is None:
        notes.append(f"note: {setup.name} has continuous values, so this is -log p / {dim} in nats, not dequantized")
    if setup.level_index:
        notes.append(
            "note: the network is conditioned on the nearest noise level, so the ODE is discontinuous; its NFE is high"
        )
    if divergence == "exact" and dim > MANY_DIMENSIONS:
        notes.append(
            f"note: an exact divergence needs {dim:,} derivatives per network evaluation; "
            "--config.eval.divergence=rademacher needs only --config.eval.num_probes"
        )
    return notes


def _lines(summary: Mapping[str, Any], num_images: int, label: str) -> list[str]:
    text = [
        f"{label} {plus_minus(summary)} over {num_images:,} images, {summary['repeats']} times; NFE "
        f"{summary['evaluations_mean']:,.1f} on average, {summary['evaluations_max']:,} at most"
    ]
    if summary["not_converged"]:
        images = ", ".join(f"{image} (repeat {repeat})" for repeat, image in summary["not_converged_images"][:10])
        text.append(
            f"warning: the solver failed in {summary['not_converged']} of {num_images * summary['repeats']:,} "
            f"measurements, which are left out: images {images}; raise --config.eval.max_evaluations, rtol or atol"
        )
    return text


def likelihood_summary(columns: Mapping[str, list], num_images: int) -> dict[str, Any]:
    """Summarize the rows of `bits_per_dim`.

    Args:
        columns: columns of the rows, ordered by repeat and then by image.
        num_images: images per repeat.

    Returns:
        mean: mean of the values over images and repeats.
        standard_error: standard error of the mean, from the spread over images.
        standard_error_noise: its part from dequantization and probes, from the spread over repeats; None for one.
        standard_error_probes: its part from the probes, from their spread; None if it is not known.
        not_converged_images: [repeat, image] of each failed solution, which the other values leave out.
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
