"""Sampler steps and their composition."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from score_sde_jax import keys as prng

Keys = Key[Array, " batch"]
Images = Float[Array, "batch *shape"]
Scalar = Float[Array, ""]
Counts = Int[Array, " batch"]


@dataclasses.dataclass(frozen=True)
class Step:
    """Sampler step (keys, x, t, s) -> x.

    Attributes:
        move: function (keys, x, t, s) -> x. If `nfe` is None, it returns (x, NFE of each image) instead of x. If the
            step has `init`, the function takes the memory as its fifth argument and returns (result, new memory).
        nfe: number of network evaluations per image; None if it differs between images.
        init: function x -> memory before the first step, for multistep methods; None for one-step methods.
    """

    move: Callable[..., Any]
    nfe: int | None
    init: Callable[[Images], PyTree] | None = None

    def __call__(self, keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        """Move images from time t to time s, as the first step of a sampler.

        Args:
            keys: one PRNG key per image.
            x: images at time t.
            t: current time.
            s: target time, at most t.
        """
        return self.call_with_nfe(keys, x, t, s)[0]

    def call_with_nfe(self, keys: Keys, x: Images, t: Scalar, s: Scalar) -> tuple[Images, Counts]:
        """Return the images of `__call__` and the NFE of each image."""
        return self.apply(keys, x, t, s, self.memory(x))[:2]

    def memory(self, x: Images) -> PyTree:
        """Return the memory before the first step.

        Args:
            x: images at the first time.
        """
        return () if self.init is None else self.init(x)

    def apply(self, keys: Keys, x: Images, t: Scalar, s: Scalar, memory: PyTree) -> tuple[Images, Counts, PyTree]:
        """Move images from time t to time s with a memory.

        Args:
            keys: one PRNG key per image.
            x: images at time t.
            t: current time.
            s: target time, at most t.
            memory: memory of the previous step.

        Returns:
            The images at time s, the NFE of each image, and the new memory.
        """
        if self.init is None:
            result = self.move(keys, x, t, s)
        else:
            result, memory = self.move(keys, x, t, s, memory)
        x, nfe = result if self.nfe is None else (result, jnp.full(len(x), self.nfe, jnp.int32))
        return x, nfe, memory


def chain(*steps: Step) -> Step:
    """Compose steps, for example a corrector and a predictor; every step has its own keys and memory.

    Args:
        *steps: steps in the order in which they are applied.
    """
    counts = [step.nfe for step in steps]
    total = None if None in counts else sum(count for count in counts if count is not None)

    def init(x: Images) -> PyTree:
        return tuple(step.memory(x) for step in steps)

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar, memory: PyTree) -> tuple[Any, PyTree]:
        nfe, memories = jnp.zeros(len(x), jnp.int32), []
        for step, step_keys, own in zip(steps, prng.split(keys, len(steps)), memory, strict=True):
            x, step_nfe, own = step.apply(step_keys, x, t, s, own)
            nfe += step_nfe
            memories.append(own)
        return (x, nfe) if total is None else x, tuple(memories)

    return Step(move, total, init)
