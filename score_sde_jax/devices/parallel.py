"""Execution of pure functions over a global batch on all devices.

Section `parallel` of a config selects one of two implementations. With `Jit` the compiler partitions a program over the
devices. With `Pmap` every device runs the program on its part of the batch, and `pmean` averages the gradients. States
have the same shapes in both, so each reads the checkpoints of the other.
"""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

from score_sde_jax.devices.machine import host_cpu, on_cpu, tracing_for
from score_sde_jax.errors import UserError

AXIS = "data"
FRAMES = "frames"
"""Name of the sampler's result (frames, images, ...), whose rows are on its second axis."""
MIN_SHARDED_SIZE = 1024
"""Leaves with fewer elements are replicated, since their messages cost more than the memory that sharding saves."""

RUN_ONCE = {"xla_backend_optimization_level": 0}
"""Options of XLA for a program that runs once on a CPU. Initial values compile in 35 to 60 percent of the time."""

TrainStep = Callable[..., tuple[PyTree, PyTree]]


class Replica(NamedTuple):
    """One of the equal parts of a global batch.

    Attributes:
        all_mean: mean of a tree over all parts.
        number: index of this part, from 0.
    """

    all_mean: Callable[[PyTree], PyTree]
    number: Int[Array, ""] | int


ALONE = Replica(lambda tree: tree, 0)
"""The only part of a batch that is not split."""


def sharded_axis(shape: tuple[int, ...], devices: int) -> int | None:
    """Return the axis along which a leaf is fully sharded: the largest that the devices divide.

    Args:
        shape: shape of the leaf.
        devices: number of devices.

    Returns:
        The axis; None if the leaf is replicated.
    """
    if math.prod(shape) < MIN_SHARDED_SIZE:
        return None
    divisible = [axis for axis, size in enumerate(shape) if size % devices == 0]
    return max(divisible, key=lambda axis: shape[axis], default=None)


def bytes_per_device(state: PyTree, devices: int, fully_sharded: bool) -> int:
    """Return the bytes of a state on each device.

    Args:
        state: state, or its shapes.
        devices: number of devices.
        fully_sharded: whether leaves are split over the devices.
    """
    total = 0
    for leaf in jax.tree.leaves(state):
        parts = devices if fully_sharded and sharded_axis(leaf.shape, devices) is not None else 1
        total += leaf.size * leaf.dtype.itemsize // parts
    return total


class Parallel:
    """Global arrays over all devices of all processes; subclasses run the training step and the sampler on them."""

    fully_sharded = False

    def __init__(self) -> None:
        self._place_on(jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,)))

    def _place_on(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.replicated = self._sharding()
        self.batched = self._sharding(AXIS)
        self.batches = self._sharding(None, AXIS)  # one batch per step of a call

    def over(self, mesh: Mesh) -> Self:
        """Return the same execution on other devices, such as those that a program is only compiled for.

        Args:
            mesh: mesh of one axis, named AXIS.
        """
        other = copy.copy(self)
        other._place_on(mesh)
        return other

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def check_batch(self, name: str, batch_size: int, parts: int = 1) -> None:
        """Check that all devices get equal parts of a batch.

        Args:
            name: flag that set the batch size, for the message.
            batch_size: images in a global batch.
            parts: microbatches of a batch.

        Raises:
            UserError: the batch size is not a positive multiple of devices times microbatches.
        """
        devices = self.mesh.size
        if batch_size < 1 or batch_size % (devices * parts):
            needs = f"{devices} devices" if devices > 1 else "1 device"
            needs += f" times {parts} microbatches" if parts > 1 else ""
            raise UserError(f"{name}={batch_size}: must be a positive multiple of {needs}")

    def shard(self, batches: PyTree) -> PyTree:
        """Return global arrays (steps, batch, ...) of this process's rows (steps, rows, ...)."""
        return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, self.batches), batches)

    def flags(self, value: bool) -> jax.Array:
        """Return the vote of this process, on each of its devices."""
        return jax.make_array_from_process_local_data(self.batched, np.full(jax.local_device_count(), value))

    def placement(self, shapes: PyTree) -> PyTree:
        """Return the sharding of each leaf of a state."""
        devices = self.mesh.size

        def leaf_sharding(leaf: Any) -> NamedSharding:
            axis = sharded_axis(leaf.shape, devices) if self.fully_sharded else None
            return self.replicated if axis is None else self._sharding(*[None] * axis, AXIS)

        return jax.tree.map(leaf_sharding, shapes)

    def init(self, function: Callable[..., PyTree], *args: Any) -> PyTree:
        """Compute function(*args), which draws random parameters, with the sharding of a state.

        It is computed on the CPU of the first process, if JAX may use it: XLA needs more than a minute to compile the
        random values of NCSN++ for a GPU (docs/accelerators.md). The state contains numbers, no keys.
        """
        host = host_cpu()
        if on_cpu() or host is None:
            return self._placed(function, args, RUN_ONCE if on_cpu() else None)
        with tracing_for("cpu"), jax.default_device(host):
            state = jax.jit(function, compiler_options=RUN_ONCE)(*jax.device_put(args, host))
        if jax.process_count() > 1:  # other CPUs may round differently
            state = multihost_utils.broadcast_one_to_all(state)

        def place(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
            values = np.asarray(leaf)
            return jax.make_array_from_callback(leaf.shape, sharding, lambda part: values[part])

        return jax.tree.map(place, state, self.placement(state))

    def apply(self, function: Callable[..., PyTree], *args: Any) -> PyTree:
        """Compute function(*args) on the devices, with the sharding of a state."""
        return self._placed(function, args, None)

    def _placed(self, function: Callable[..., PyTree], args: tuple, options: dict[str, Any] | None) -> PyTree:
        places = self.placement(jax.eval_shape(function, *args))
        return jax.jit(function, out_shardings=places, compiler_options=options)(*args)

    def abstract(self, function: Callable[..., PyTree], *args: Any) -> PyTree:
        """Return shapes, dtypes and shardings of `init(function, *args)`, without computing it."""
        shapes = jax.eval_shape(function, *args)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.placement(shapes),
        )

    def compiled(self, step: TrainStep, state: PyTree, batches: PyTree, key: jax.Array) -> jax.stages.Compiled:
        """Compile (state, batches, key, flags) -> (state, metrics, any flag), which donates the old state.

        The step computes the result of the vote, so that all processes get it at the same step without a separate
        collective.

        Args:
            step: training step (state, batches, key) -> (state, metrics).
            state: state, or its shapes.
            batches: batches of one call.
            key: key of the run.
        """
        return self.train(step, state).lower(state, batches, key, self.flags(False)).compile()

    def train(self, step: TrainStep, state: PyTree) -> Any:
        """Return the jitted function that `compiled` compiles."""
        raise NotImplementedError

    def per_example(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Return the jitted function, with examples split over the devices and replicated results.

        Args:
            function: (params, indices, key, inputs) -> results; `indices` are those of the examples, `inputs` a tree of
                arrays with one row per example. Results have one row per example too, on the second axis if they are
                named `frames`.
        """
        raise NotImplementedError


class Jit(Parallel):
    """One program over the global batch, partitioned by the compiler (`jax.jit` over a mesh with `NamedSharding`).

    The compiler inserts the collectives, since a mean over a sharded batch is a mean over the devices too.

    Attributes:
        fully_sharded: whether parameters, their averages and the optimizer state are split over the devices too.

    Reference: arXiv 1910.02054 (ZeRO, stage 3).
    """

    def __init__(self, *, fully_sharded: bool = False) -> None:
        super().__init__()
        self.fully_sharded = fully_sharded

    def train(self, step: TrainStep, state: PyTree) -> Any:
        """Return the jitted function that `compiled` compiles."""
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
        """Return the jitted function, with examples split over the devices and replicated results."""

        @functools.partial(
            jax.jit, in_shardings=(None, self.batched, None, self.batched), out_shardings=self.replicated
        )
        def split(params: PyTree, indices: jax.Array, key: jax.Array, inputs: PyTree) -> PyTree:
            return function(params, indices, key, inputs)

        return split


class Pmap(Parallel):
    """The same program on every device with its part of the batch (`jax.shard_map`); `pmean` averages the gradients.

    Parameters, their averages and the optimizer state are replicated.
    """

    def train(self, step: TrainStep, state: PyTree) -> Any:
        """Return the jitted function that `compiled` compiles."""
        del state
        mean = functools.partial(jax.lax.pmean, axis_name=AXIS)

        def with_vote(state: PyTree, batches: PyTree, key: jax.Array, flag: jax.Array) -> tuple:
            replica = Replica(mean, jax.lax.axis_index(AXIS))
            return *step(state, batches, key, replica), jax.lax.pmax(flag[0], AXIS)

        return jax.jit(self._on_every_device(with_vote, None, 1, None, 0), donate_argnums=0)

    def per_example(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Return the jitted function, with examples split over the devices and replicated results."""

        def gathered(params: PyTree, indices: jax.Array, key: jax.Array, inputs: PyTree) -> PyTree:
            def gather(path: tuple, leaf: jax.Array) -> jax.Array:
                rows = 1 if jax.tree_util.keystr(path, simple=True).endswith(FRAMES) else 0
                return jax.lax.all_gather(leaf, AXIS, axis=rows, tiled=True)

            return jax.tree.map_with_path(gather, function(params, indices, key, inputs))

        mapped = self._on_every_device(gathered, None, 0, None, 0)
        return jax.jit(mapped, in_shardings=(None, self.batched, None, self.batched))

    def _on_every_device(self, function: Callable[..., PyTree], *axes: int | None) -> Callable[..., PyTree]:
        """Map a function over the devices.

        Since JAX 0.8 `jax.pmap` is implemented by `jax.shard_map`, but inside `jit` it uses only the devices of its own
        process.

        Args:
            function: function to map.
            *axes: axis along which each argument is split; None for a replicated argument.
        """
        parts = tuple(PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS) for axis in axes)
        return jax.shard_map(function, mesh=self.mesh, in_specs=parts, out_specs=PartitionSpec(), check_vma=False)


PARALLEL: dict[str, type[Parallel]] = {"jit": Jit, "pmap": Pmap}
