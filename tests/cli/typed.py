"""Command lines of the tests."""

import pathlib

import jax

ROOT = pathlib.Path(__file__).parents[2]
DIGITS_HERE = "--config=ROOT/configs/digits.py:debug"
CELEBA_HERE = "--config=ROOT/configs/celeba.py:debug"
QUICK = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
}
"""Environment of processes with short runs, most of whose time is compilation."""
