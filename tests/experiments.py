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


def finished(name: str, *assignments: str, variant: str = ":debug") -> Settings:
    """The settings, overridden and checked."""
    return settings.from_config(loaded(name, variant), assignments)
