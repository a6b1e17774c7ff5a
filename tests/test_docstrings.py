"""Docstrings of the package: what they list exists."""

import importlib
import inspect
import pkgutil

import pytest

import score_sde_jax
from score_sde_jax.settings.reference import meanings

MODULES = [module.name for module in pkgutil.walk_packages(score_sde_jax.__path__, "score_sde_jax.")]


def documented(module):
    """Functions and classes of a module, and the methods of its classes."""
    for name, each in vars(module).items():
        if getattr(each, "__module__", None) != module.__name__ or not (
            inspect.isfunction(each) or inspect.isclass(each)
        ):
            continue
        yield name, each
        if inspect.isclass(each):
            for method, function in vars(each).items():
                if inspect.isfunction(function):
                    yield f"{name}.{method}", function


def members(each):
    """Names that `Args:` and `Attributes:` may list."""
    if not inspect.isclass(each):
        return set(inspect.signature(each).parameters)
    names = set(dir(each)).union(*(vars(base).get("__annotations__", {}) for base in each.__mro__))
    for base in each.__mro__:
        constructor = vars(base).get("__init__")
        if inspect.isfunction(constructor):
            names |= set(inspect.signature(constructor).parameters) | set(inspect.unwrap(constructor).__code__.co_names)
    return names


@pytest.mark.parametrize("name", MODULES)
def test_listed_arguments_and_attributes_exist(name):
    unknown = {path: set(meanings(each)) - members(each) for path, each in documented(importlib.import_module(name))}
    assert not {path: sorted(names) for path, names in unknown.items() if names}
