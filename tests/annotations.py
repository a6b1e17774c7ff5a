"""Annotations of the numerical core, checked at run time in the tests."""

import inspect
from collections.abc import Callable

from beartype import beartype

CHECKS: dict[tuple[str, str, str], Callable] = {}


def checked(signature: Callable) -> Callable:
    """Return beartype's check of a signature, compiled once.

    jaxtyping requests a check at each definition of a function, and inner functions are defined in each call.
    """
    key = signature.__module__, signature.__qualname__, str(inspect.signature(signature))
    if key not in CHECKS:
        CHECKS[key] = beartype(signature)
    return CHECKS[key]
