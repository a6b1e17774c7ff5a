"""A step of a sampler, and steps made of several."""

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
    """A sampler's step (keys, x, t, s) -> x and how often it evaluates the network for every image.

    Where the images decide how often, `evaluations` is None and `move` returns (x, evaluations of each image).
    A multistep method also has `init`: `init(x)` is what it remembers before its first step, and `move` takes the
    memory as a fifth argument and returns it as it is after the step: (what it returns without, memory).
    """

    move: Callable[..., Any]
    nfe: int | None
    init: Callable[[Images], PyTree] | None = None

    def __call__(self, keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        """Move the images x from time t to time s, remembering nothing."""
        return self.call_with_nfe(keys, x, t, s)[0]

    def call_with_nfe(self, keys: Keys, x: Images, t: Scalar, s: Scalar) -> tuple[Images, Counts]:
        """The same, and how often the network was evaluated for each image."""
        return self.apply(keys, x, t, s, self.memory(x))[:2]

    def memory(self, x: Images) -> PyTree:
        """What is remembered before the first step, from images x."""
        return () if self.init is None else self.init(x)

    def apply(self, keys: Keys, x: Images, t: Scalar, s: Scalar, memory: PyTree) -> tuple[Images, Counts, PyTree]:
        """Move the images x from time t to time s: the images, evaluations of each, and what is remembered now."""
        if self.init is None:
            moved = self.move(keys, x, t, s)
        else:
            moved, memory = self.move(keys, x, t, s, memory)
        x, counts = moved if self.nfe is None else (moved, jnp.full(len(x), self.nfe, jnp.int32))
        return x, counts, memory


def chain(*steps: Step) -> Step:
    """One step made of several, each with keys of its own; a corrector and a predictor make predictor-corrector."""
    numbers = [step.nfe for step in steps]
    total = None if None in numbers else sum(n for n in numbers if n is not None)

    def init(x: Images) -> PyTree:
        return tuple(step.memory(x) for step in steps)

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar, memory: PyTree) -> tuple[Any, PyTree]:
        evaluations, kept = jnp.zeros(len(x), jnp.int32), []
        for step, step_keys, own in zip(steps, prng.split(keys, len(steps)), memory, strict=True):
            x, more, own = step.apply(step_keys, x, t, s, own)
            evaluations += more
            kept.append(own)
        return (x, evaluations) if total is None else x, tuple(kept)

    return Step(move, total, init)
