"""The only file that knows devices: how the pure functions over a global batch run on all of them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from score_sde_jax.errors import UserError


class DataParallel:
    """Batches split over all devices, everything else replicated (`jax.jit` over a mesh with `NamedSharding`).

    A mean over a sharded batch is a mean, so no collective is written by hand.
    """

    def __init__(self) -> None:
        self.mesh: Mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.batched = NamedSharding(self.mesh, PartitionSpec("data"))

    def check_batch(self, name: str, batch_size: int) -> None:
        """Raise UserError if the devices cannot share a batch equally."""
        if batch_size < 1 or batch_size % jax.device_count():
            raise UserError(f"{name}={batch_size} must be a positive multiple of the {jax.device_count()} devices")

    def shard(self, batch: np.ndarray) -> jax.Array:
        """Global array from this process's rows."""
        return jax.make_array_from_process_local_data(self.batched, batch)

    def init(self, function: Callable[..., PyTree], *args: Any) -> PyTree:
        """Result of function(*args), placed on every device."""
        return jax.jit(function, out_shardings=self.replicated)(*args)

    def abstract(self, function: Callable[..., PyTree], *args: Any) -> PyTree:
        """Shapes, types and placement of `init(function, *args)`, without computing it."""
        shapes = jax.eval_shape(function, *args)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.replicated), shapes)

    def train(self, step: Callable[..., tuple[PyTree, PyTree]]) -> Callable[..., tuple[PyTree, PyTree]]:
        """Compiled (state, batch, key) -> (state, metrics); the old state is given up."""
        return jax.jit(
            step,
            in_shardings=(self.replicated, self.batched, self.replicated),
            out_shardings=self.replicated,
            donate_argnums=0,
        )

    def sampler(self, sample: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Compiled (params, indices, key) -> (images, frames), the images of a batch split over the devices."""
        frames = NamedSharding(self.mesh, PartitionSpec(None, "data"))
        return jax.jit(
            sample, in_shardings=(self.replicated, self.batched, self.replicated), out_shardings=(self.batched, frames)
        )
