"""Values of settings: parsing of flags, types and ranges."""

import ast
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of finite numbers.

    Attributes:
        low: lower bound.
        high: upper bound, which is excluded.
        exclusive: whether the lower bound is excluded too.
    """

    low: float = -float("inf")
    high: float = float("inf")
    exclusive: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.exclusive else value >= self.low) and value < self.high

    def __str__(self) -> str:
        bounds = [f"{'>' if self.exclusive else '>='} {self.low:g}", f"< {self.high:g}"]
        return "must be " + (" and ".join(bound for bound in bounds if not bound.endswith("inf")) or "finite")


def parse(text: str, annotation: Any) -> Any:
    """Parse the text of a flag.

    Args:
        text: a word of a `Literal`; true, false or none in any case; a Python literal; any other text is a string.
        annotation: type of the key; an integer is converted for a float.
    """
    if typing.get_origin(annotation) is typing.Literal and text in typing.get_args(annotation):
        return text
    value = _literal(text)
    return float(value) if annotation is float and type(value) is int else value


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def matches(value: Any, annotation: Any) -> bool:
    """Return whether a value has the annotated type; integers count as floats too."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True
    if origin is typing.Literal:
        return value in args
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, arg) for arg in args)
    if origin is tuple:
        if not isinstance(value, tuple | list) or (args[-1] is not ... and len(value) != len(args)):
            return False
        return all(matches(item, args[0]) for item in value)
    if origin is Mapping or origin is dict:
        return isinstance(value, Mapping) and all(matches(item, args[1]) for item in value.values())
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (None, types.NoneType):
        return value is None
    return isinstance(value, annotation)


def describe(annotation: Any) -> str:
    """Return an annotation in words."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe, args))
    if origin is tuple:
        return f"a tuple such as ({', '.join(['1'] * max(2, len(args)))})"
    if origin is Mapping:
        return "names with numbers, such as {'slow': 0.9999}"
    words = {float: "a number", int: "an integer", bool: "True or False", str: "a string", types.NoneType: "None"}
    return words.get(annotation, str(annotation))
