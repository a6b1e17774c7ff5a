"""Time limits of tests on a machine of any load."""

import os

FACTOR = float(os.environ.get("TEST_PATIENCE", "20"))
"""Multiplies every limit, which only a process that hangs reaches."""


def time_limit(seconds: float) -> float:
    """Seconds to wait for what takes at most `seconds` on an idle machine."""
    return FACTOR * seconds
