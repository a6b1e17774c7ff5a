"""Settings: typed, immutable sections, read and checked once from a config and its overrides."""

from score_sde_jax.settings.auto import adopt, automatic, resolve
from score_sde_jax.settings.choices import Choice
from score_sde_jax.settings.reading import flatten, from_config, from_saved, load, plain, run_name, with_values
from score_sde_jax.settings.sections import Settings

__all__ = [
    "Choice",
    "Settings",
    "adopt",
    "automatic",
    "flatten",
    "from_config",
    "from_saved",
    "load",
    "plain",
    "resolve",
    "run_name",
    "with_values",
]
