"""Ranges of numbers, which annotate the parameters of every part; the settings check them.

A bound is where the mathematics, the arithmetic of float32 and int32, or the memory of any machine ends.
"""

import dataclasses
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of finite numbers.

    Attributes:
        low: lower bound.
        high: upper bound, which is excluded.
        exclusive: whether the lower bound is excluded too.
    """

    low: float
    high: float
    exclusive: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.exclusive else value >= self.low) and value < self.high

    def __str__(self) -> str:
        low, high = (f"{bound:,}" if isinstance(bound, int) else f"{bound:g}" for bound in (self.low, self.high))
        return f"must be {'>' if self.exclusive else '>='} {low} and < {high}"


@dataclasses.dataclass(frozen=True)
class NotEmpty:
    """Tuples with at least one item."""

    def __contains__(self, value: tuple) -> bool:
        return len(value) > 0

    def __str__(self) -> str:
        return "must have at least one item"


Count = Annotated[int, Range(1, 2**31)]
"""A positive number, which int32 holds."""
Natural = Annotated[int, Range(0, 2**31)]
"""A number or zero, which int32 holds."""
Seed = Annotated[int, Range(0, 2**32)]
"""A seed of JAX's keys."""
Bytes = Annotated[int, Range(0, 2**63)]
"""A number of bytes."""
BatchSize = Annotated[int, Range(1, 2**20)]
"""Examples that are in memory at once."""
ImageSize = Annotated[int, Range(1, 2**14)]
"""Height or width of an image, in pixels."""
Width = Annotated[int, Range(1, 2**16)]
"""Features of a layer."""
Depth = Annotated[int, Range(1, 2**10)]
"""Layers or blocks, each of which is traced."""
Levels = Annotated[int, Range(2, 2**20)]
"""Noise levels."""
Steps = Annotated[int, Range(1, 2**24)]
"""Steps of a time grid."""
Finite = Annotated[float, Range(-1e18, 1e18)]
"""A number whose square float32 holds."""
NonNegative = Annotated[float, Range(0, 1e18)]
"""A number >= 0 whose square float32 holds."""
Positive = Annotated[float, Range(1e-18, 1e18)]
"""A positive number whose square and inverse square float32 holds."""
Share = Annotated[float, Range(0, 1)]
"""A share of a whole, or the decay of an average."""
PositiveShare = Annotated[float, Range(0, 1, exclusive=True)]
"""A share that is not zero."""
