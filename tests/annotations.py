"""Annotations of the numerical core, checked at run time in the tests."""

import inspect
from collections.abc import Callable

from beartype import beartype

CHECKS: dict[tuple[str, str, str], Callable] = {}


def checked(signature: Callable) -> Callable:
    """Return the function that checks the arguments of a signature, made by beartype once.

    jaxtyping asks for it each time that a function is defined, and a function in another one is defined in every call.
    """
    key = signature.__module__, signature.__qualname__, str(inspect.signature(signature))
    if key not in CHECKS:
        CHECKS[key] = beartype(signature)
    return CHECKS[key]
