"""Optimizers and learning-rate schedules."""

from typing import Literal

import optax

from score_sde_jax.networks.embedding import trainable
from score_sde_jax.ranges import NonNegative, Positive, Share


def learning_rate_schedule(
    learning_rate: float, num_steps: int, *, warmup_steps: int = 0, decay: Literal["constant", "cosine"] = "constant"
) -> optax.Schedule:
    """Return linear warm-up from 0, then a constant learning rate or cosine decay to 0.

    Args:
        learning_rate: learning rate after the warm-up.
        num_steps: number of training steps; cosine decay ends there.
        warmup_steps: number of warm-up steps; 0 for none.
        decay: "constant" or "cosine".
    """
    rest = optax.constant_schedule(learning_rate)
    if decay == "cosine":
        rest = optax.cosine_decay_schedule(learning_rate, max(num_steps - warmup_steps, 1))
    if not warmup_steps:
        return rest
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), rest], [warmup_steps])


def adam(
    schedule: optax.Schedule,
    *,
    beta1: Share = 0.9,
    beta2: Share = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    gradient_clip: Positive | None = None,
) -> optax.GradientTransformation:
    """Return Adam with optional decoupled weight decay and gradient clipping.

    Args:
        schedule: learning-rate schedule.
        beta1: decay of the first moment, 0 <= beta1 < 1.
        beta2: decay of the second moment, 0 <= beta2 < 1.
        eps: constant added to the root of the second moment; positive.
        weight_decay: decoupled weight decay of trained parameters, times the learning rate; 0 for none.
        gradient_clip: largest global norm of the gradient; None for no clipping.

    Reference: arXiv 1412.6980; arXiv 1711.05101.
    """
    # A mask changes the structure of the optimizer state, and older checkpoints without weight decay have none.
    mask = trainable if weight_decay else None
    optimizer = optax.adamw(schedule, b1=beta1, b2=beta2, eps=eps, weight_decay=weight_decay, mask=mask)
    if gradient_clip is None:
        return optimizer
    # optax.clip_by_global_norm divides every value and so writes the gradient once more; this scales by one factor.
    clip = optax.stateless(lambda gradient, _: optax.projections.projection_l2_ball(gradient, gradient_clip))
    return optax.chain(clip, optimizer)


OPTIMIZERS = {"adam": adam}
