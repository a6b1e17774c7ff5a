"""Time limits of tests, long enough for a loaded machine."""

import os

FACTOR = float(os.environ.get("TEST_PATIENCE", "20"))
"""Factor of every limit; only a process that hangs reaches it."""


def time_limit(seconds: float) -> float:
    """Seconds to wait for what takes at most `seconds` on an idle machine."""
    return FACTOR * seconds
