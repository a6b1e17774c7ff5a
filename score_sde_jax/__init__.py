"""Score-based generative models of images as pure functions in JAX.

The names below are the public interface of the package; its subpackages hold the rest.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from score_sde_jax import keys, samplers
    from score_sde_jax.condition import Condition
    from score_sde_jax.data import DATASETS, Pixels, training_batches
    from score_sde_jax.devices.parallel import PARALLEL
    from score_sde_jax.diffusion.losses import TIMES, WEIGHTS, score_matching_loss
    from score_sde_jax.diffusion.parameterization import CONDITIONS, PARAMETERIZATIONS, Parameterization
    from score_sde_jax.diffusion.sdes import DDPM, EDM, SDE, SDES, VE, VP, SubVP
    from score_sde_jax.errors import RunError, StoppedError, UserError
    from score_sde_jax.networks import MODELS
    from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS, Sampler
    from score_sde_jax.version import __version__

__all__ = [
    "CONDITIONS",
    "CORRECTORS",
    "DATASETS",
    "DDPM",
    "EDM",
    "GRIDS",
    "MODELS",
    "PARALLEL",
    "PARAMETERIZATIONS",
    "PREDICTORS",
    "SDE",
    "SDES",
    "TIMES",
    "VE",
    "VP",
    "WEIGHTS",
    "Condition",
    "Parameterization",
    "Pixels",
    "RunError",
    "Sampler",
    "StoppedError",
    "SubVP",
    "UserError",
    "__version__",
    "keys",
    "samplers",
    "score_matching_loss",
    "training_batches",
]

# The module of each name. A name is imported when it is first used: importing JAX takes a second, and the command line
# restarts its process before that.
_MODULES = {
    "condition": ("Condition",),
    "data": ("DATASETS", "Pixels", "training_batches"),
    "devices.parallel": ("PARALLEL",),
    "diffusion.losses": ("TIMES", "WEIGHTS", "score_matching_loss"),
    "diffusion.parameterization": ("CONDITIONS", "PARAMETERIZATIONS", "Parameterization"),
    "diffusion.sdes": ("DDPM", "EDM", "SDE", "SDES", "VE", "VP", "SubVP"),
    "errors": ("RunError", "StoppedError", "UserError"),
    "networks": ("MODELS",),
    "samplers": ("CORRECTORS", "GRIDS", "PREDICTORS", "Sampler"),
    "version": ("__version__",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in ("keys", "samplers"):
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
