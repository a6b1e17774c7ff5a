"""What a config may say: every section, the registry it picks from, and the options it takes.

A new SDE, network, data set or sampler step becomes a choice here by its line in its own registry.
"""

import dataclasses
from typing import Literal

from score_sde_jax.data import DATASETS
from score_sde_jax.devices.parallel import PARALLEL
from score_sde_jax.diffusion import losses
from score_sde_jax.diffusion.parameterization import CONDITIONS, PARAMETERIZATIONS
from score_sde_jax.diffusion.sdes import SDES
from score_sde_jax.networks import MODELS
from score_sde_jax.networks.optimizer import OPTIMIZERS
from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS
from score_sde_jax.settings.reading import Schema, Section
from score_sde_jax.tasks import TASKS


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootOptions:
    """Keys at the top level of a config."""

    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """How images become training batches: flips, uniform dequantisation, and the range of values."""

    flip: bool = False
    dequantize: bool = False
    value_range: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AffineOptions:
    """The image value that the network sees as 0, and the factor on what is left."""

    center: float = 0.0
    input_scale: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """How the errors of an image become its loss."""

    reduction: Literal["mean", "half_sum"] = "mean"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """Learning rate over the steps."""

    learning_rate: float
    warmup_steps: int = 0
    decay: Literal["constant", "cosine"] = "constant"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The training loop: lengths in steps; `preview_every` = 0 draws no previews.

    microbatches: equal parts of a batch whose gradients are added up, one after the other, to save memory.
    steps_per_call: steps that one call of the compiled program makes; the lengths are multiples of it.
    rematerialize: keep the outputs of blocks alone for the backward pass and compute the rest again.
    max_skipped: how many updates that are not finite may be left out before the run stops.
    tensorboard, wandb: write there too, beside metrics.jsonl.
    """

    steps: int
    batch_size: int
    ema_decay: float = 0.999
    log_every: int = 100
    preview_every: int = 0
    microbatches: int = 1
    steps_per_call: int = 1
    rematerialize: bool = False
    max_skipped: int = 0
    tensorboard: bool = False
    wandb: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """How often the state is saved, in steps, and what is kept: the latest `keep`, every one whose step is a multiple
    of `keep_every` (0 for none), and with `keep_best` that of the lowest mean loss between two saves, in a directory of
    its own.
    """

    every: int = 1000
    keep: int = 3
    keep_every: int = 0
    keep_best: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Sampling around its steps: the start and a factor on it, the final denoising step, the order, how many images, in
    batches of how many, frames of the GIF.
    """

    prior: Literal["gaussian", "uniform"] = "gaussian"
    temperature: float = 1.0
    denoise: bool = True
    order: Literal["corrector_predictor", "predictor_corrector"] = "corrector_predictor"
    num_images: int = 64
    batch_size: int = 64
    num_frames: int = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Measurements of held-out images with the averaged parameters.

    loss: the training loss and the loss of every noise level, each image seen `draws` times, also of as many training
        images. bits_per_dim: the likelihood of the probability flow, `repeats` times over the images.
    split: of the data set ("test" where it has any); dir: where the held-out images lie, if elsewhere; num_images: how
    many of them, 0 for all, in batches of `batch_size`.
    divergence, num_probes, rtol, atol, t_min, max_evaluations: how the flow is followed (likelihood.py); t_min is that
        of the SDE where not given.
    """

    loss: bool = True
    bits_per_dim: bool = False
    split: str | None = None
    dir: str | None = None
    num_images: int = 0
    batch_size: int = 64
    draws: int = 10
    repeats: int = 1
    divergence: Literal["rademacher", "gaussian", "exact"] = "rademacher"
    num_probes: int = 1
    rtol: float = 1e-5
    atol: float = 1e-5
    t_min: float | None = None
    max_evaluations: int = 10_000


SCHEMA: Schema = {
    "": Section(options=RootOptions),
    "data": Section(DATASETS, options=PipelineOptions),
    "model": Section(MODELS, auto=("num_levels",)),
    "sde": Section(SDES, auto=("sigma_max",)),
    "parameterization": Section(PARAMETERIZATIONS, options=AffineOptions),
    "parameterization.condition": Section(CONDITIONS, auto=("num_levels",)),
    "loss": Section(
        losses.LOSSES, options=LossOptions, default="denoising", elsewhere=("times", "weight", "reduction")
    ),
    "loss.times": Section(losses.TIMES, auto=("num_levels",)),
    "loss.weight": Section(losses.WEIGHTS),
    "optimizer": Section(OPTIMIZERS, options=ScheduleOptions),
    "train": Section(options=TrainOptions),
    "parallel": Section(PARALLEL, default="jit"),
    "checkpoint": Section(options=CheckpointOptions),
    "sampler": Section(options=SamplerOptions, optional=True),
    "sampler.times": Section(GRIDS, auto=("num_levels",)),
    "sampler.predictor": Section(PREDICTORS),
    "sampler.corrector": Section(CORRECTORS, auto=("step_size",)),
    "task": Section(TASKS, default="none"),
    "eval": Section(options=EvalOptions),
}
LEVELS = ("model", "parameterization.condition", "loss.times", "sampler.times")
"""Sections that may hold a number of ladder levels."""
