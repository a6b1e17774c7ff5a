"""The only file that knows devices: how the pure functions over a global batch run on all of them.

Two ways, chosen by section `parallel` of a config: `Jit`, where the compiler splits a program that is written for one
device, and `Pmap`, where every device runs the program and gradients are averaged by `pmean`. States have the same
shapes in both, so a checkpoint moves between them.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

from score_sde_jax.errors import UserError

AXIS = "data"
FRAMES = "frames"
"""Name of the result of a sampler that has one row for every frame before that for every image."""
MIN_SHARDED_SIZE = 1024
"""Leaves below this many elements stay whole: a message for each would cost more than the memory it saves."""

TrainStep = Callable[..., tuple[PyTree, PyTree]]
CompiledStep = Callable[..., tuple[PyTree, PyTree, jax.Array]]


class Replica(NamedTuple):
    """One of the equal parts that a global batch is split into by hand, and the mean over all of them."""

    all_mean: Callable[[PyTree], PyTree]
    number: Int[Array, ""] | int


ALONE = Replica(lambda tree: tree, 0)
"""The whole batch in one part."""


def sharded_axis(shape: tuple[int, ...], devices: int) -> int | None:
    """Axis along which a fully sharded leaf is split: the largest that the devices divide, None where it stays
    whole.
    """
    if math.prod(shape) < MIN_SHARDED_SIZE:
        return None
    divisible = [axis for axis, size in enumerate(shape) if size % devices == 0]
    return max(divisible, key=lambda axis: shape[axis], default=None)


def bytes_per_device(state: PyTree, devices: int, fully_sharded: bool) -> int:
    """Bytes of a state, or of its shapes, on each of a number of devices."""
    total = 0
    for leaf in jax.tree.leaves(state):
        parts = devices if fully_sharded and sharded_axis(leaf.shape, devices) is not None else 1
        total += leaf.size * leaf.dtype.itemsize // parts
    return total


class Parallel:
    """Global arrays over all devices of all processes; subclasses say how the training step and sampler run on them."""

    fully_sharded = False

    def __init__(self) -> None:
        self.mesh: Mesh = jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))
        self.replicated = self._sharding()
        self.batched = self._sharding(AXIS)
        self.batches = self._sharding(None, AXIS)  # several batches, one for each step of a call

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def check_batch(self, name: str, batch_size: int, parts: int = 1) -> None:
        """Raise UserError if the devices cannot share a batch, in `parts` microbatches, equally."""
        devices = jax.device_count()
        if batch_size < 1 or batch_size % (devices * parts):
            needs = f"the {devices} devices" + (f" times {parts} microbatches" if parts > 1 else "")
            raise UserError(f"{name}={batch_size}: must be a positive multiple of {needs}")

    def shard(self, batches: PyTree) -> PyTree:
        """Global arrays (steps, batch, ...) from this process's rows (steps, rows, ...)."""
        return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, self.batches), batches)

    def flags(self, value: bool) -> jax.Array:
        """The value of this process in a vote, on each of its devices."""
        return jax.make_array_from_process_local_data(self.batched, np.full(jax.local_device_count(), value))

    def placement(self, shapes: PyTree) -> PyTree:
        """Where each leaf of a state lies."""
        devices = jax.device_count()

        def of(leaf: Any) -> NamedSharding:
            axis = sharded_axis(leaf.shape, devices) if self.fully_sharded else None
            return self.replicated if axis is None else self._sharding(*[None] * axis, AXIS)

        return jax.tree.map(of, shapes)

    def init(self, function: Callable[..., PyTree], *args: Any) -> PyTree:
        """Result of function(*args), in its place on the devices."""
        return jax.jit(function, out_shardings=self.placement(jax.eval_shape(function, *args)))(*args)

    def abstract(self, function: Callable[..., PyTree], *args: Any) -> PyTree:
        """Shapes, types and placement of `init(function, *args)`, without computing it."""
        shapes = jax.eval_shape(function, *args)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.placement(shapes),
        )

    def compiled(self, step: TrainStep, state: PyTree, batches: PyTree, key: jax.Array) -> CompiledStep:
        """(state, batches, key, flags) -> (state, metrics, any flag), compiled for arguments like these.

        The old state is given up. The vote rides in the step, so that all processes learn its result for the same step
        without a collective of their own.
        """
        return self.train(step, state).lower(state, batches, key, self.flags(False)).compile()

    def train(self, step: TrainStep, state: PyTree) -> Any:
        """The jitted function that `compiled` compiles."""
        raise NotImplementedError

    def per_example(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Jitted function(params, indices, key, given), whose results every process gets whole.

        `indices` number the examples and `given` is a tree of arrays with one row for each; both are split over the
        devices. Every result has one row for each example too, except one named `frames`, whose rows are on its second
        axis.
        """
        raise NotImplementedError


class Jit(Parallel):
    """One program over the global batch, split by the compiler (`jax.jit` over a mesh with `NamedSharding`).

    A mean over a sharded batch is a mean, so no collective is written by hand. With `fully_sharded`, parameters, their
    average and the optimizer's moments are split over the devices too (arXiv 1910.02054).
    """

    def __init__(self, *, fully_sharded: bool = False) -> None:
        super().__init__()
        self.fully_sharded = fully_sharded

    def train(self, step: TrainStep, state: PyTree) -> Any:
        """The jitted function that `compiled` compiles."""
        place = self.placement(state)

        def with_vote(state: PyTree, batches: PyTree, key: jax.Array, flags: jax.Array) -> tuple:
            return *step(state, batches, key), flags.any()

        return jax.jit(
            with_vote,
            in_shardings=(place, self.batches, self.replicated, self.batched),
            out_shardings=(place, self.replicated, self.replicated),
            donate_argnums=0,
        )

    def per_example(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Jitted function(params, indices, key, given), whose results every process gets whole."""

        @functools.partial(
            jax.jit, in_shardings=(None, self.batched, None, self.batched), out_shardings=self.replicated
        )
        def split(params: PyTree, indices: jax.Array, key: jax.Array, given: PyTree) -> PyTree:
            return function(params, indices, key, given)

        return split


class Pmap(Parallel):
    """The same program on every device with its part of the batch; gradients are averaged by `pmean` (`jax.shard_map`).

    Parameters and optimizer state are replicated.
    """

    def train(self, step: TrainStep, state: PyTree) -> Any:
        """The jitted function that `compiled` compiles."""
        del state
        mean = functools.partial(jax.lax.pmean, axis_name=AXIS)

        def with_vote(state: PyTree, batches: PyTree, key: jax.Array, flag: jax.Array) -> tuple:
            replica = Replica(mean, jax.lax.axis_index(AXIS))
            return *step(state, batches, key, replica), jax.lax.pmax(flag[0], AXIS)

        return jax.jit(self._on_every_device(with_vote, None, 1, None, 0), donate_argnums=0)

    def per_example(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Jitted function(params, indices, key, given), whose results every process gets whole."""

        def gathered(params: PyTree, indices: jax.Array, key: jax.Array, given: PyTree) -> PyTree:
            def gather(path: tuple, leaf: jax.Array) -> jax.Array:
                rows = 1 if jax.tree_util.keystr(path, simple=True).endswith(FRAMES) else 0
                return jax.lax.all_gather(leaf, AXIS, axis=rows, tiled=True)

            return jax.tree.map_with_path(gather, function(params, indices, key, given))

        mapped = self._on_every_device(gathered, None, 0, None, 0)
        return jax.jit(mapped, in_shardings=(None, self.batched, None, self.batched))

    def _on_every_device(self, function: Callable[..., PyTree], *axes: int | None) -> Callable[..., PyTree]:
        """The function on every device, with its part of each argument along the given axis, or whole for None.

        What `jax.pmap` is since JAX 0.8, which inside `jit` sees the devices of its own process alone.
        """
        parts = tuple(PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS) for axis in axes)
        return jax.shard_map(function, mesh=self.mesh, in_specs=parts, out_specs=PartitionSpec(), check_vma=False)


PARALLEL: dict[str, type[Parallel]] = {"jit": Jit, "pmap": Pmap}
