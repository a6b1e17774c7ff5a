"""Optimizers: gradient clipping, Adam, learning-rate schedule."""

from typing import Literal

import optax

from score_sde_jax.networks.embedding import trainable


def learning_rate_schedule(
    learning_rate: float, num_steps: int, *, warmup_steps: int = 0, decay: Literal["constant", "cosine"] = "constant"
) -> optax.Schedule:
    """Linear warm-up from 0, then constant or a cosine to 0 at num_steps."""
    rest = optax.constant_schedule(learning_rate)
    if decay == "cosine":
        rest = optax.cosine_decay_schedule(learning_rate, max(num_steps - warmup_steps, 1))
    if not warmup_steps:
        return rest
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), rest], [warmup_steps])


def adam(
    schedule: optax.Schedule,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    gradient_clip: float | None = None,
) -> optax.GradientTransformation:
    """Adam (arXiv 1412.6980), with decoupled weight decay (arXiv 1711.05101) and clipping by the global norm where
    given. Parameters that are not trained do not decay.
    """
    mask = trainable if weight_decay else None  # a mask is part of the state, and of older checkpoints it was not
    optimizer = optax.adamw(schedule, b1=beta1, b2=beta2, eps=eps, weight_decay=weight_decay, mask=mask)
    if gradient_clip is None:
        return optimizer
    # By one factor for all: optax.clip_by_global_norm divides every value, and so writes the gradient once more.
    clip = optax.stateless(lambda gradient, _: optax.projections.projection_l2_ball(gradient, gradient_clip))
    return optax.chain(clip, optimizer)


OPTIMIZERS = {"adam": adam}
