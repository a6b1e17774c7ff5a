"""The backend and the devices that JAX uses."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_target = contextvars.ContextVar[str | None]("target", default=None)


@contextlib.contextmanager
def tracing_for(backend: str) -> Iterator[None]:
    """Trace programs as for another backend than that of this machine, to lower or compile them for it.

    Args:
        backend: name of the backend as JAX reports it, "cpu", "gpu" or "tpu".
    """
    token = _target.set(backend)
    try:
        yield
    finally:
        _target.reset(token)


def on_cpu() -> bool:
    """Return whether programs are compiled for CPUs."""
    return (_target.get() or jax.default_backend()) == "cpu"


def host_cpu() -> jax.Device | None:
    """Return the CPU of this process, or None if JAX_PLATFORMS leaves it out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def num_devices() -> int:
    """Return the number of devices of all processes."""
    return jax.device_count()
