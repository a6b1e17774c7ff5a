"""Pixels: from stored quantization levels to what a network is trained on, and back."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num, UInt8

from score_sde_jax import keys as prng
from score_sde_jax.errors import UserError
from score_sde_jax.keys import Stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
    """The map between stored values 0 .. levels - 1 and x_0, in JAX; points (`levels` None) stay as they are.

    value_range: where black and white go, (0, 1) if None. dequantize: train on uniformly dequantized values
    (v + u) / levels instead of v / (levels - 1) (arXiv 1306.0186, 1511.01844). flip: mirror half of the images in
    training.
    Raises UserError for an empty range, and for options that points do not have.
    """

    levels: int | None
    value_range: tuple[float, float] | None = None
    dequantize: bool = False
    flip: bool = False

    def __post_init__(self) -> None:
        if self.levels is None:
            for key in ("dequantize", "flip", "value_range"):
                if getattr(self, key):
                    raise UserError(f"--config.data.{key}={getattr(self, key)}: points have no pixels; leave it out")
        low, high = self.ends
        if not low < high:
            raise UserError(f"--config.data.value_range={self.value_range}: two numbers, the smaller first")

    @property
    def ends(self) -> tuple[float, float]:
        """The values of black and white."""
        return self.value_range or (0.0, 1.0)

    def __call__(self, keys: Key[Array, " batch"], stored: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Training images x_0: mirrored and dequantized by streams of each image's key, in the value range."""
        stored = jnp.asarray(stored)
        if self.flip:
            mirror = prng.uniform(prng.stream(keys, Stream.FLIP), jnp.zeros(len(stored))) < 0.5
            stored = jnp.where(prng.bcast(mirror, stored), stored[:, :, ::-1], stored)
        return (
            self.dequantized(prng.stream(keys, Stream.DEQUANTIZE), stored) if self.dequantize else self.scaled(stored)
        )

    def scaled(self, stored: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Values v / (levels - 1) in the value range."""
        if self.levels is None:
            return stored
        # A table, since XLA divides by a product: 126 of 256 levels would differ from numpy's in the last bit.
        return jnp.asarray(self.table())[stored]

    def table(self) -> Float[np.ndarray, " levels"]:
        """x_0 of every stored value."""
        assert self.levels is not None
        return self._affine(np.arange(self.levels, dtype=np.uint16) / np.float32(self.levels - 1))

    def dequantized(self, keys: Key[Array, " batch"], stored: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Values (v + u) / levels in the value range, with u uniform on [0, 1)."""
        values = jnp.asarray(stored, jnp.float32)
        return self._affine((values + prng.uniform(keys, values)) / jnp.float32(self.levels))

    def known(self, stored: Num[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """x_0 of observed images: the middle of what a value is dequantized to, if the network has learned that."""
        if self.levels is None:
            return stored
        if not self.dequantize:
            return self.table()[stored]
        return self._affine((stored + np.float32(0.5)) / np.float32(self.levels))

    def stored(self, x0: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        """Gray values 0 to 255 of x_0; of dequantized values those of their level."""
        low, high = self.ends
        unit = np.clip((x0 - low) / (high - low), 0.0, 1.0)
        if self.dequantize and self.levels is not None:
            unit = np.minimum(np.floor(self.levels * unit), self.levels - 1) / (self.levels - 1)
        return np.round(255 * unit).astype(np.uint8)

    def gray(self, stored: Num[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        """Gray values 0 to 255 of stored values."""
        assert self.levels is not None
        return np.round(stored * (255 / (self.levels - 1))).astype(np.uint8)

    def _affine(self, unit: Any) -> Any:
        low, high = self.ends
        return unit if (low, high) == (0.0, 1.0) else np.float32(low) + np.float32(high - low) * unit
