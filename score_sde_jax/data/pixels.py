"""The map between stored pixel values and clean images x_0."""

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
    """The map between stored values v in 0 to levels - 1 and clean images x_0; points stay unchanged.

    Attributes:
        levels: quantization levels; None for points.
        value_range: values of black and white in x_0; None means (0, 1).
        dequantize: whether training images are uniformly dequantized, (v + u) / levels instead of v / (levels - 1).
        flip: whether training images are mirrored left to right with probability 1/2.

    Raises:
        UserError: `value_range` is empty, or points have an option of images.

    Reference: arXiv 1306.0186 and 1511.01844 (uniform dequantization).
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
            raise UserError(f"--config.data.value_range={self.value_range}: the first value must be < the second")

    @property
    def ends(self) -> tuple[float, float]:
        """Values of black and white in x_0."""
        return self.value_range or (0.0, 1.0)

    def __call__(self, keys: Key[Array, " batch"], stored: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return training images x_0; the noise of flips and dequantization depends on the key of each image alone.

        Args:
            keys: one key per image.
            stored: stored values, or points.
        """
        stored = jnp.asarray(stored)
        if self.flip:
            mirror = prng.uniform(prng.stream(keys, Stream.FLIP), jnp.zeros(len(stored))) < 0.5
            stored = jnp.where(prng.bcast(mirror, stored), stored[:, :, ::-1], stored)
        return (
            self.dequantized(prng.stream(keys, Stream.DEQUANTIZE), stored) if self.dequantize else self.scaled(stored)
        )

    def scaled(self, stored: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return v / (levels - 1), mapped to the value range."""
        if self.levels is None:
            return stored
        # XLA divides by multiplying with the reciprocal, so 126 of 256 levels would differ from numpy in the last bit.
        return jnp.asarray(self.table())[stored]

    def table(self) -> Float[np.ndarray, " levels"]:
        """Return x_0 of every stored value 0 to levels - 1."""
        assert self.levels is not None
        return self._affine(np.arange(self.levels, dtype=np.uint16) / np.float32(self.levels - 1))

    def dequantized(self, keys: Key[Array, " batch"], stored: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return (v + u) / levels, mapped to the value range, with u uniform on [0, 1).

        Args:
            keys: one key per image.
            stored: stored values.
        """
        values = jnp.asarray(stored, jnp.float32)
        return self._affine((values + prng.uniform(keys, values)) / jnp.float32(self.levels))

    def known(self, stored: Num[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Return x_0 of observed images; with `dequantize` the mean (v + 1/2) / levels of the dequantized values."""
        if self.levels is None:
            return stored
        if not self.dequantize:
            return self.table()[stored]
        return self._affine((stored + np.float32(0.5)) / np.float32(self.levels))

    def stored(self, x0: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        """Return pixel values 0 to 255 of x_0; with `dequantize`, x_0 is first rounded down to its level."""
        low, high = self.ends
        unit = np.clip((x0 - low) / (high - low), 0.0, 1.0)
        if self.dequantize and self.levels is not None:
            unit = np.minimum(np.floor(self.levels * unit), self.levels - 1) / (self.levels - 1)
        return np.round(255 * unit).astype(np.uint8)

    def gray(self, stored: Num[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        """Return pixel values 0 to 255 of stored values."""
        assert self.levels is not None
        return np.round(stored * (255 / (self.levels - 1))).astype(np.uint8)

    def _affine(self, unit: Any) -> Any:
        low, high = self.ends
        return unit if (low, high) == (0.0, 1.0) else np.float32(low) + np.float32(high - low) * unit
