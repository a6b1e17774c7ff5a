"""What NCSNv2's techniques choose from the data where a config says "auto"."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from score_sde_jax.data import Dataset, all_images
from score_sde_jax.diffusion import ladder
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.settings import reading as configs
from score_sde_jax.settings.reading import AUTO
from score_sde_jax.settings.schema import LEVELS, SCHEMA


def is_automatic(config: ConfigDict) -> bool:
    """Whether the data decide a value of the config."""
    return AUTO in configs.flatten(config).values()


def choose_automatic(config: ConfigDict, data: Dataset) -> list[str]:
    """Replace every "auto" in place by what NCSNv2's techniques choose from the data; one line for each choice."""
    told = []
    if config.sde.get("sigma_max") == AUTO:
        low, high = config.data.value_range or (0.0, 1.0)
        unit = 1.0 if data.levels is None else (high - low) / (data.levels - 1)
        with config.ignore_type():
            config.sde.sigma_max = round(unit * ladder.largest_pairwise_distance(all_images(data)), 4)
        told.append(f"sde.sigma_max = {config.sde.sigma_max} (technique 1: largest distance between two images)")
    sde = configs.construct(config, SCHEMA, "sde")
    sigma_min, sigma_max = (float(sde.sigma(jnp.asarray(t))) for t in (sde.t_min, sde.t_max))
    dimension = int(np.prod(data.image_shape))
    for path in LEVELS:
        if configs.has(config, path) and (section := configs.section(config, path)).get("num_levels") == AUTO:
            with section.ignore_type():
                section.num_levels = ladder.num_levels(dimension, sigma_min, sigma_max)
            told.append(f"{path}.num_levels = {section.num_levels} (technique 2: overlapping levels)")
    if "sampler" in config and (corrector := config.sampler.corrector).get("step_size") == AUTO:
        first, second = (float(sde.sigma(t)) for t in sampling_times(config, sde)[:2])
        with corrector.ignore_type():
            corrector.step_size = float(f"{ladder.langevin_step_size(first / second, corrector.num_steps):.4g}")
        told.append(
            f"sampler.corrector.step_size = {corrector.step_size} sigma^2 (technique 4: noise kept at its level)"
        )
    return told


def sampling_times(config: ConfigDict, sde: SDE) -> jax.Array:
    """The times that the sampler visits."""
    return configs.construct(config, SCHEMA, "sampler.times", sde)
