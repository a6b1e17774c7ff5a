"""The backend and the devices that JAX uses."""

import jax


def on_cpu() -> bool:
    """Return whether programs are compiled for CPUs."""
    return jax.default_backend() == "cpu"


def num_devices() -> int:
    """Return the number of devices of all processes."""
    return jax.device_count()
