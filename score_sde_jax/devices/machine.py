"""What JAX runs on: the backend and the number of devices."""

import jax


def on_cpu() -> bool:
    """Whether programs are compiled for CPUs."""
    return jax.default_backend() == "cpu"


def num_devices() -> int:
    """Devices of all processes together."""
    return jax.device_count()
