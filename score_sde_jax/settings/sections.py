"""The settings of a run: every section, its keys with types, ranges and defaults, and the registries it picks from.

A new SDE, network, dataset or sampler step becomes a choice here by its line in its own registry.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from score_sde_jax.data import DATASETS
from score_sde_jax.devices.parallel import PARALLEL
from score_sde_jax.diffusion.losses import LOSSES, TIMES, WEIGHTS
from score_sde_jax.diffusion.ode import Evaluations
from score_sde_jax.diffusion.parameterization import CONDITIONS, PARAMETERIZATIONS
from score_sde_jax.diffusion.sdes import SDES
from score_sde_jax.keys import Generator
from score_sde_jax.networks import MODELS
from score_sde_jax.networks.optimizer import OPTIMIZERS
from score_sde_jax.ranges import BatchSize, Count, Finite, Natural, NonNegative, Positive, Range, Seed, Share
from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS
from score_sde_jax.settings.choices import Choice, OneOf
from score_sde_jax.tasks import TASKS

EMA = "ema"
"""Name of the average with the decay `train.ema_decay`."""
Precision = Literal["default", "highest", "tf32", "bfloat16"]
"""Precision of a network: "default" is that of the device for the products and convolutions of `model.dtype`, "highest"
float32 for them, "tf32" TF32 on NVIDIA GPUs since Ampere, "bfloat16" the whole network in bfloat16."""
LEVELS = ("model", "parameterization.condition", "loss.times", "sampler.times")
"""Sections that may hold a number of noise levels, `num_levels`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Choice):
    """The dataset, and the map from its stored values to network inputs.

    Attributes:
        flip: mirror each training image with probability 1/2.
        dequantize: add uniform noise of one quantization level to training images.
        value_range: network input for black and for white; (0, 1) if None.
    """

    flip: bool = False
    dequantize: bool = False
    value_range: tuple[Finite, Finite] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameterization(Choice):
    """Preconditioning and noise-level conditioning of the network.

    The network input is `input_scale` times the preconditioned difference from `center`.

    Attributes:
        condition: function of the noise level on which the network is conditioned.
        center: pixel value that the network receives as 0, in units of `data.value_range`.
        input_scale: factor of the centered input.
    """

    condition: Annotated[Choice, OneOf(CONDITIONS, auto=("num_levels",))]
    center: Finite = 0.0
    input_scale: Positive = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(Choice):
    """The loss, its training times and weighting, and the reduction over the dimensions of an image.

    Attributes:
        times: distribution of the training times.
        weight: weighting of the squared error at each time.
        reduction: reduction of the squared errors of an image: their mean, or half of their sum.
    """

    times: Annotated[Choice, OneOf(TIMES, auto=("num_levels",))]
    weight: Annotated[Choice, OneOf(WEIGHTS)]
    reduction: Literal["mean", "half_sum"] = "mean"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Choice):
    """The optimizer and its learning-rate schedule.

    Attributes:
        learning_rate: learning rate after the warm-up.
        warmup_steps: steps in which the learning rate rises linearly from 0.
        decay: schedule after the warm-up: constant, or a cosine that ends at 0 at `train.steps`.
    """

    learning_rate: NonNegative
    warmup_steps: Natural = 0
    decay: Literal["constant", "cosine"] = "constant"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """The training loop.

    Attributes:
        steps: length of the run, in steps.
        batch_size: images per step, on all devices together.
        ema_decay: decay of the exponential moving average of the parameters (EMA), per step.
        averages: decays of further averages of the parameters, by name.
        label_dropout: share of training images without their class, for classifier-free guidance.
        log_every: steps between two lines of metrics.
        preview_every: steps between two previews of samples; 0 for none.
        microbatches: equal parts of a batch whose gradients are accumulated in turn, which saves memory.
        steps_per_call: steps in one call of the compiled program; it divides the other lengths. None for 1 on CPUs, and
            on accelerators the largest common divisor of the lengths up to 10.
        flat: train with parameters, averages and optimizer state in a few flat vectors, which takes fewer kernels; for
            optimizers that treat every value alike. None for accelerators, unless the state is fully sharded.
        precision: precision of the network in training: "default" for that of `model.dtype` on the device, "highest"
            for float32 products and convolutions, "tf32", or "bfloat16" for the whole network.
        rng: generator of the random numbers of training; philox4x32 takes less time where dropout takes many.
        rematerialize: keep only the outputs of blocks for the backward pass (activation checkpointing).
        max_skipped: number of updates that are not finite and are skipped before the run stops.
        tensorboard: write metrics for TensorBoard too.
        wandb: write metrics to Weights & Biases too.
    """

    steps: Count
    batch_size: BatchSize
    ema_decay: Share = 0.999
    averages: Mapping[str, Share] = dataclasses.field(default_factory=dict)
    label_dropout: Share = 0.1
    log_every: Count = 100
    preview_every: Natural = 0
    microbatches: BatchSize = 1
    steps_per_call: Annotated[int, Range(1, 2**16)] | None = None
    flat: bool | None = None
    precision: Precision = "default"
    rng: Generator = "threefry2x32"
    rematerialize: bool = False
    max_skipped: Natural = 0
    tensorboard: bool = False
    wandb: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The steps at which the state is saved, and the checkpoints that are kept.

    Attributes:
        every: steps between two checkpoints.
        keep: number of latest checkpoints that are kept.
        keep_every: checkpoints whose step is a multiple of this are kept for good; 0 for none.
        keep_best: keep the checkpoint with the lowest mean loss between two saves, in the folder `best`.
    """

    every: Count = 1000
    keep: Count = 3
    keep_every: Natural = 0
    keep_best: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """The sampler: time grid, predictor, corrector, initial noise and final denoising step.

    Attributes:
        times: time grid, from the largest to the smallest noise.
        predictor: step from one time of the grid to the next.
        corrector: Langevin dynamics at one time of the grid.
        prior: distribution of the initial noise: N(0, sigma(t_max)^2), or uniform on [0, 1).
        temperature: factor of the initial noise.
        precision: precision of the network, as `train.precision`.
        denoise: end with the denoising step E[x_0 | x_t].
        order: order of corrector and predictor at each time.
        average: average of the parameters: "ema" for `train.ema_decay`, or a name of `train.averages`.
        num_images: number of images to generate.
        batch_size: images per batch, on all devices together.
        num_frames: frames of the animated GIF.
    """

    times: Annotated[Choice, OneOf(GRIDS, auto=("num_levels",))]
    predictor: Annotated[Choice, OneOf(PREDICTORS)]
    corrector: Annotated[Choice, OneOf(CORRECTORS, auto=("step_size",))]
    prior: Literal["gaussian", "uniform"] = "gaussian"
    temperature: Positive = 1.0
    precision: Precision = "default"
    denoise: bool = True
    order: Literal["corrector_predictor", "predictor_corrector"] = "corrector_predictor"
    average: str = EMA
    num_images: Count = 64
    batch_size: BatchSize = 64
    num_frames: Annotated[int, Range(1, 2**10)] = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measurements of held-out images.

    Attributes:
        loss: measure the training loss, and the loss per noise level.
        bits_per_dim: measure bits per dimension under the probability flow ODE.
        split: split of the dataset; "test" if None and the dataset has splits.
        dir: folder or file of the measured images; `data.dir` if None.
        num_images: number of images; 0 for all.
        batch_size: images per batch, on all devices together.
        draws: noise draws per image for the loss.
        repeats: measurements of bits per dimension per image, each with its own noise.
        divergence: distribution of the Hutchinson probes, or "exact" for the exact divergence.
        num_probes: Hutchinson probes per image.
        rtol: relative error tolerance of the ODE solver.
        atol: absolute error tolerance of the ODE solver.
        t_min: first time of the ODE; that of the SDE if None.
        max_evaluations: network evaluations per image after which the ODE solver stops.
        average: average of the parameters: "ema" for `train.ema_decay`, or a name of `train.averages`.
    """

    loss: bool = True
    bits_per_dim: bool = False
    split: str | None = None
    dir: str | None = None
    num_images: Natural = 0
    batch_size: BatchSize = 64
    draws: BatchSize = 10
    repeats: Count = 1
    divergence: Literal["rademacher", "gaussian", "exact"] = "rademacher"
    num_probes: BatchSize = 1
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    t_min: NonNegative | None = None
    max_evaluations: Evaluations = 10_000
    average: str = EMA


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run.

    Attributes:
        seed: seed of all random numbers.
        data: the dataset, and the map from its stored values to network inputs.
        model: the network.
        sde: the diffusion, defined by alpha(t) and sigma(t).
        parameterization: preconditioning and noise-level conditioning of the network.
        loss: the loss, its training times and its weighting.
        optimizer: the optimizer and its learning-rate schedule.
        train: the training loop.
        parallel: the distribution of training and sampling over devices.
        checkpoint: the checkpoints that are saved and kept.
        sampler: the sampler; None for a run without images, such as that of a classifier.
        task: the sampling task.
        eval: measurements of held-out images.
    """

    seed: Seed = 0
    data: Annotated[Data, OneOf(DATASETS)]
    model: Annotated[Choice, OneOf(MODELS, auto=("num_levels",))]
    sde: Annotated[Choice, OneOf(SDES, auto=("sigma_max",))]
    parameterization: Annotated[Parameterization, OneOf(PARAMETERIZATIONS)]
    loss: Annotated[Loss, OneOf(LOSSES, "denoising")]
    optimizer: Annotated[Optimizer, OneOf(OPTIMIZERS)]
    train: Train
    parallel: Annotated[Choice, OneOf(PARALLEL, "jit")]
    checkpoint: Checkpoint
    sampler: Sampler | None = None
    task: Annotated[Choice, OneOf(TASKS, "none")]
    eval: Evaluation
