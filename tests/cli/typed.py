"""Command lines of the tests."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
DIGITS_HERE = "--config=ROOT/configs/digits.py:debug"
CELEBA_HERE = "--config=ROOT/configs/celeba.py:debug"
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
"""Environment of processes with short runs, most of whose time is compilation."""
