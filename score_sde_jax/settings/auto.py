"""Values "auto", which the techniques of NCSNv2 compute from the data (arXiv 2006.09011)."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from score_sde_jax.data import Dataset
from score_sde_jax.diffusion import ladder
from score_sde_jax.errors import UserError
from score_sde_jax.settings.choices import AUTO
from score_sde_jax.settings.reading import flatten, plain, with_values
from score_sde_jax.settings.rules import at
from score_sde_jax.settings.sections import LEVELS, Settings


def automatic(settings: Settings) -> list[str]:
    """Return the dotted paths of the keys with value "auto"."""
    return [path for path, value in flatten(plain(settings)).items() if value == AUTO]


def adopt(settings: Settings, saved: Mapping[str, Any]) -> Settings:
    """Replace every "auto" by its value in a saved run.

    Args:
        settings: settings with any "auto".
        saved: content of config.json.
    """
    values = flatten(saved)
    return with_values(settings, {path: values[path] for path in automatic(settings) if path in values})


def _spread(data: Dataset) -> np.ndarray:
    """Return the images whose distances are computed: a subset of a large dataset, so that the rest is not read."""
    return data.gather(ladder.subset(len(data)))[0]


def resolve(settings: Settings, data: Dataset) -> tuple[Settings, list[str]]:
    """Replace every "auto" by the value that its technique computes from the data.

    Args:
        settings: settings with any "auto".
        data: training images.

    Returns:
        The settings, and one line per value to print.

    Reference: arXiv 2006.09011, techniques 1, 2 and 4.
    """
    lines = []

    def replace(values: Mapping[str, Any], line: str) -> None:
        nonlocal settings
        settings = with_values(settings, values)
        lines.append(line)

    if settings.sde.get("sigma_max") == AUTO:
        low, high = settings.data.value_range or (0.0, 1.0)
        unit = 1.0 if data.levels is None else (high - low) / (data.levels - 1)
        sigma_max = round(unit * ladder.largest_pairwise_distance(_spread(data)), 4)
        if not sigma_max > settings.sde.get("sigma_min", 0.0):
            raise UserError(
                f"--config.sde.sigma_max=auto: the largest distance between two of the {len(data):,} images of "
                f"{data.name} is {sigma_max:g}, not above sde.sigma_min={settings.sde.get('sigma_min')}; give a number"
            )
        replace(
            {"sde.sigma_max": sigma_max},
            f"sde.sigma_max = {sigma_max} (technique 1: largest distance between two images)",
        )
    sde = settings.sde()
    sigma_min, sigma_max = (float(sde.sigma(jnp.asarray(t))) for t in (sde.t_min, sde.t_max))
    if levels := [key for key in (f"{path}.num_levels" for path in LEVELS) if at(settings, key) == AUTO]:
        dimension, size = int(np.prod(data.image_shape)), settings.data.get("image_size")
        if size is not None and dimension < ladder.MIN_DIMENSION:
            raise UserError(
                f"--config.data.image_size={size}: {levels[0]}=auto needs images of >= {ladder.MIN_DIMENSION} values, "
                f"got {dimension}; choose a larger size, or set a number of levels"
            )
        number = ladder.num_levels(dimension, sigma_min, sigma_max)
        replace(
            dict.fromkeys(levels, number), f"{', '.join(levels)} = {number} (technique 2: overlapping noise levels)"
        )
    if settings.sampler and settings.sampler.corrector.get("step_size") == AUTO:
        first, second = (float(sde.sigma(t)) for t in settings.sampler.times(sde)[:2])
        size = float(f"{ladder.langevin_step_size(first / second, settings.sampler.corrector.num_steps):.4g}")
        replace(
            {"sampler.corrector.step_size": size},
            f"sampler.corrector.step_size = {size} sigma^2 (technique 4: Langevin steps that preserve the noise level)",
        )
    return settings, lines
