"""The experiments of configs/: their names, and finished configs of their tiny variants."""

import pathlib

from ml_collections import ConfigDict

from score_sde_jax import settings
from score_sde_jax.settings import Settings

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.py") if path.parent.name != "families")
NAMES = [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in FILES]


def loaded(name: str, variant: str = "") -> ConfigDict:
    """The config as its file gives it."""
    return settings.load(f"{CONFIGS / name}.py{variant}")


SMALLEST = ("model.name=mlp", "model.width=4", "model.depth=1", "parameterization.condition.name=log_sigma")
"""Overrides that give a config of 8 x 8 images the network that is traced and compiled in the shortest time."""


def finished(name: str, *assignments: str, variant: str = ":debug") -> Settings:
    """The settings, overridden and checked."""
    return settings.from_config(loaded(name, variant), assignments)


def smallest(*assignments: str) -> Settings:
    """The settings of the digits with the smallest network, for tests of everything around a network."""
    return finished("digits", *SMALLEST, *assignments)
