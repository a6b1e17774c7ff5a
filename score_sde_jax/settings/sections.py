"""The settings of a run: every section, its keys with types, ranges and defaults, and the registries it picks from.

A new SDE, network, dataset or sampler step becomes a choice here by its line in its own registry.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from score_sde_jax.data import DATASETS
from score_sde_jax.devices.parallel import PARALLEL
from score_sde_jax.diffusion.losses import LOSSES, TIMES, WEIGHTS
from score_sde_jax.diffusion.ode import AT_START, PER_STEP
from score_sde_jax.diffusion.parameterization import CONDITIONS, PARAMETERIZATIONS
from score_sde_jax.diffusion.sdes import SDES
from score_sde_jax.networks import MODELS
from score_sde_jax.networks.optimizer import OPTIMIZERS
from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS
from score_sde_jax.settings.choices import Choice, From
from score_sde_jax.settings.fields import Range
from score_sde_jax.tasks import TASKS

Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32)]
Finite = Annotated[float, Range(exclusive=True)]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, exclusive=True)]
Decay = Annotated[float, Range(0, 1)]

EMA = "ema"
"""Name of the average with the decay `train.ema_decay`."""
LEVELS = ("model", "parameterization.condition", "loss.times", "sampler.times")
"""Sections that may hold a number of noise levels, `num_levels`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Choice):
    """The dataset, and how its images become network inputs.

    flip: mirror half of the training images. dequantize: add uniform noise below one quantization level. value_range:
    where black and white go, (0, 1) if None.
    """

    flip: bool = False
    dequantize: bool = False
    value_range: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameterization(Choice):
    """Preconditioning and noise conditioning; the network sees `input_scale` times what is left of `center`."""

    condition: Annotated[Choice, From(CONDITIONS, auto=("num_levels",))]
    center: Finite = 0.0
    input_scale: Positive = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(Choice):
    """The loss, its training times and weighting, and how the errors of an image are reduced to one number."""

    times: Annotated[Choice, From(TIMES, auto=("num_levels",))]
    weight: Annotated[Choice, From(WEIGHTS)]
    reduction: Literal["mean", "half_sum"] = "mean"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Choice):
    """The optimizer and its learning-rate schedule, in steps."""

    learning_rate: NonNegative
    warmup_steps: Natural = 0
    decay: Literal["constant", "cosine"] = "constant"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """The training loop; lengths are in steps, and `preview_every` = 0 draws no previews.

    ema_decay, averages: decay of the averaged parameters that are sampled with, and of more averages by their names.
    label_dropout: share of images whose class the network is not told, for classifier-free guidance.
    microbatches: equal parts of a batch whose gradients are accumulated one after the other, to save memory.
    steps_per_call: steps in one call of the compiled program; the lengths are multiples of it.
    rematerialize: activation checkpointing; keep block outputs alone for the backward pass.
    max_skipped: how many updates that are not finite may be skipped before the run stops.
    tensorboard, wandb: log there too, beside metrics.jsonl.
    """

    steps: Count
    batch_size: Count
    ema_decay: Decay = 0.999
    averages: Mapping[str, Decay] = dataclasses.field(default_factory=dict)
    label_dropout: Decay = 0.1
    log_every: Count = 100
    preview_every: Natural = 0
    microbatches: Count = 1
    steps_per_call: Count = 1
    rematerialize: bool = False
    max_skipped: Natural = 0
    tensorboard: bool = False
    wandb: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """How often the state is saved, in steps, and which checkpoints are kept.

    Those are the latest `keep`, every one whose step is a multiple of `keep_every` (0 for none), and with `keep_best`
    the one with the lowest mean loss between two saves, in a directory of its own.
    """

    every: Count = 1000
    keep: Count = 3
    keep_every: Natural = 0
    keep_best: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Sampling: time grid, predictor, corrector and their order, initial noise times `temperature`, final denoising.

    average: of the parameters: "ema" for train.ema_decay, or a name of train.averages.
    `num_images` images are drawn in batches of `batch_size`, with `num_frames` frames in the GIF.
    """

    times: Annotated[Choice, From(GRIDS, auto=("num_levels",))]
    predictor: Annotated[Choice, From(PREDICTORS)]
    corrector: Annotated[Choice, From(CORRECTORS, auto=("step_size",))]
    prior: Literal["gaussian", "uniform"] = "gaussian"
    temperature: Positive = 1.0
    denoise: bool = True
    order: Literal["corrector_predictor", "predictor_corrector"] = "corrector_predictor"
    average: str = EMA
    num_images: Count = 64
    batch_size: Count = 64
    num_frames: Count = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measurements of held-out images with the averaged parameters.

    loss: the training loss and the loss per noise level, at `draws` times per image, also of as many training images.
    bits_per_dim: the likelihood under the probability flow ODE, `repeats` times per image.
    split, dir: where the images come from ("test" if the dataset has splits); num_images: how many, 0 for all, in
        batches of `batch_size`.
    average: as in section `sampler`.
    divergence, num_probes, rtol, atol, t_min, max_evaluations: of the ODE (likelihood.py); t_min of the SDE if None.
    """

    loss: bool = True
    bits_per_dim: bool = False
    split: str | None = None
    dir: str | None = None
    num_images: Natural = 0
    batch_size: Count = 64
    draws: Count = 10
    repeats: Count = 1
    divergence: Literal["rademacher", "gaussian", "exact"] = "rademacher"
    num_probes: Count = 1
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    t_min: float | None = None
    max_evaluations: Annotated[int, Range(AT_START + PER_STEP)] = 10_000
    average: str = EMA


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run; `sampler` is None for a run that draws no images, such as a classifier's."""

    seed: Seed = 0
    data: Annotated[Data, From(DATASETS)]
    model: Annotated[Choice, From(MODELS, auto=("num_levels",))]
    sde: Annotated[Choice, From(SDES, auto=("sigma_max",))]
    parameterization: Annotated[Parameterization, From(PARAMETERIZATIONS)]
    loss: Annotated[Loss, From(LOSSES, "denoising")]
    optimizer: Annotated[Optimizer, From(OPTIMIZERS)]
    train: Train
    parallel: Annotated[Choice, From(PARALLEL, "jit")]
    checkpoint: Checkpoint
    sampler: Sampler | None = None
    task: Annotated[Choice, From(TASKS, "none")]
    eval: Evaluation
