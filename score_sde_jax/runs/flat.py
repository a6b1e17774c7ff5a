"""Parameters in a few flat vectors, which an accelerator updates by a few kernels.

A network has hundreds of small parameters, and an update of each on its own takes an accelerator longer than the
network. While an accelerator trains, the parameters, their averages and the moments of the optimizer are flat vectors.
Everything outside the loop, checkpoints included, has the parameters themselves.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey
from jaxtyping import Array, PyTree

from score_sde_jax.networks.embedding import FIXED, trainable

LEAVES_PER_VECTOR = 64
"""Largest number of parameters in one vector, since a kernel has a limited number of operands."""
TO_TREE = "unflatten"
"""Name in profiles of the operations that cut parameters out of the vectors."""
TRAINED = "trained_"
"""Prefix of the names of vectors of trained parameters; the others have the prefix of fixed parameters."""
WEIGHT_AXES = 4
"""Axes of the weights of a convolution: height, width, input and output channels."""


class Slot(NamedTuple):
    """The place of a parameter: the name of its vector, the index of its first value there, and its shape."""

    vector: str
    start: int
    shape: tuple[int, ...]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Flat:
    """A tree in flat vectors. For JAX and Optax it is a tree whose leaves are the vectors.

    Attributes:
        vectors: vectors by name.
        structure: structure of the tree.
        slots: place of each leaf.
    """

    vectors: dict[str, Array]
    structure: Any
    slots: tuple[Slot, ...]

    @jax.named_scope(TO_TREE)
    def tree(self) -> PyTree:
        """Return the tree."""
        leaves = []
        for name, start, shape in self.slots:
            values = jax.lax.slice_in_dim(self.vectors[name], start, start + math.prod(shape))
            leaves.append(_shaped(values, shape))
        return jax.tree.unflatten(self.structure, leaves)

    def like(self, tree: PyTree) -> "Flat":
        """Return another tree of the same structure and shapes, such as a gradient, in the same places."""
        parts: dict[str, list[Array]] = {}
        for leaf, slot in zip(jax.tree.leaves(tree), self.slots, strict=True):
            parts.setdefault(slot.vector, []).append(_values(leaf))
        return dataclasses.replace(self, vectors={name: jnp.concatenate(each) for name, each in parts.items()})

    def tree_flatten_with_keys(self) -> tuple[list[tuple[DictKey, Array]], tuple[Any, ...]]:
        """Return the vectors with their names, and the constants."""
        names = tuple(sorted(self.vectors))
        return [(DictKey(name), self.vectors[name]) for name in names], (names, self.structure, self.slots)

    @classmethod
    def tree_unflatten(cls, constants: tuple[Any, ...], vectors: Iterable[Any]) -> "Flat":
        """Return a tree of other vectors."""
        names, structure, slots = constants
        return cls(dict(zip(names, vectors, strict=True)), structure, slots)


def flatten(params: PyTree) -> Flat:
    """Return parameters in flat vectors, those that are trained apart from those that are fixed."""
    ends, numbers, slots = dict[str, int](), {TRAINED: 0, FIXED: 0}, []
    leaves, structure = jax.tree.flatten(params)
    for leaf, is_trained in zip(leaves, jax.tree.leaves(trainable(params)), strict=True):
        kind = TRAINED if is_trained else FIXED
        name = f"{kind}{numbers[kind] // LEAVES_PER_VECTOR}"
        numbers[kind] += 1
        slots.append(Slot(name, ends.get(name, 0), tuple(leaf.shape)))
        ends[name] = ends.get(name, 0) + math.prod(leaf.shape)
    return Flat({}, structure, tuple(slots)).like(params)


def flatten_state(state: PyTree, params: PyTree) -> PyTree:
    """Return a state with every tree of the structure of the parameters in flat vectors.

    Args:
        state: parameters, averages of them, optimizer states, in any tree.
        params: the parameters.
    """
    places, structure = flatten(params), jax.tree.structure(params)

    def is_like_params(tree: PyTree) -> bool:
        return bool(jax.tree.structure(tree) == structure)  # type: ignore[operator]

    return jax.tree.map(lambda tree: places.like(tree) if is_like_params(tree) else tree, state, is_leaf=is_like_params)


def unflatten_state(state: PyTree) -> PyTree:
    """Return the state that `flatten_state` had."""
    return jax.tree.map(as_tree, state, is_leaf=is_flat)


def as_tree(tree: PyTree) -> PyTree:
    """Return a tree, whether it is in flat vectors or not."""
    return tree.tree() if is_flat(tree) else tree


def in_form_of(params: PyTree, tree: PyTree) -> PyTree:
    """Return a tree such as a gradient in flat vectors, if the parameters are."""
    return params.like(tree) if is_flat(params) else tree


def is_flat(tree: PyTree) -> bool:
    """Return whether a tree is in flat vectors."""
    return isinstance(tree, Flat)


def _values(leaf: Array) -> Array:
    """Return the values of a leaf; the last axis of convolution weights comes first, as accelerators read them."""
    return (jnp.moveaxis(leaf, -1, 0) if leaf.ndim == WEIGHT_AXES else leaf).reshape(-1)


def _shaped(values: Array, shape: tuple[int, ...]) -> Array:
    """Return the leaf of these values."""
    if len(shape) != WEIGHT_AXES:
        return values.reshape(shape)
    return jnp.moveaxis(values.reshape(shape[-1:] + shape[:-1]), 0, -1)
