"""What NCSNv2's techniques choose from the data where a setting is "auto" (arXiv 2006.09011)."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from score_sde_jax.data import Dataset, all_images
from score_sde_jax.diffusion import ladder
from score_sde_jax.settings.choices import AUTO
from score_sde_jax.settings.reading import flatten, plain, with_values
from score_sde_jax.settings.rules import at
from score_sde_jax.settings.sections import LEVELS, Settings


def automatic(settings: Settings) -> list[str]:
    """Dotted paths of the keys that the data decide."""
    return [path for path, value in flatten(plain(settings)).items() if value == AUTO]


def adopt(settings: Settings, saved: Mapping[str, Any]) -> Settings:
    """Settings with every "auto" as the run with this config.json has chosen it."""
    chosen = flatten(saved)
    return with_values(settings, {path: chosen[path] for path in automatic(settings) if path in chosen})


def resolve(settings: Settings, data: Dataset) -> tuple[Settings, list[str]]:
    """Settings with every "auto" as the techniques choose it from the data, and one line for each choice."""
    lines = []

    def choose(values: Mapping[str, Any], line: str) -> None:
        nonlocal settings
        settings = with_values(settings, values)
        lines.append(line)

    if settings.sde.get("sigma_max") == AUTO:
        low, high = settings.data.value_range or (0.0, 1.0)
        unit = 1.0 if data.levels is None else (high - low) / (data.levels - 1)
        sigma_max = round(unit * ladder.largest_pairwise_distance(all_images(data)), 4)
        choose(
            {"sde.sigma_max": sigma_max},
            f"sde.sigma_max = {sigma_max} (technique 1: largest distance between two images)",
        )
    sde = settings.sde()
    sigma_min, sigma_max = (float(sde.sigma(jnp.asarray(t))) for t in (sde.t_min, sde.t_max))
    if levels := [key for key in (f"{path}.num_levels" for path in LEVELS) if at(settings, key) == AUTO]:
        number = ladder.num_levels(int(np.prod(data.image_shape)), sigma_min, sigma_max)
        choose(dict.fromkeys(levels, number), f"{', '.join(levels)} = {number} (technique 2: overlapping noise levels)")
    if settings.sampler and settings.sampler.corrector.get("step_size") == AUTO:
        first, second = (float(sde.sigma(t)) for t in settings.sampler.times(sde)[:2])
        size = float(f"{ladder.langevin_step_size(first / second, settings.sampler.corrector.num_steps):.4g}")
        choose(
            {"sampler.corrector.step_size": size},
            f"sampler.corrector.step_size = {size} sigma^2 (technique 4: Langevin steps that keep the noise level)",
        )
    return settings, lines
