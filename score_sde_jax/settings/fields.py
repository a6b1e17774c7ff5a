"""Values of config keys: from the text of a flag, and whether they are what an annotation asks for."""

import ast
import types
import typing
from typing import Any


def parse(text: str, annotation: Any) -> Any:
    """One of the words that the annotation allows, a Python literal, true, false or none in any case, or the text.

    A whole number for a real one becomes real.
    """
    if typing.get_origin(annotation) is typing.Literal and text in typing.get_args(annotation):
        return text
    value = _literal(text)
    return float(value) if annotation is float and type(value) is int else value


def _literal(text: str) -> Any:
    lowered = {"true": True, "false": False, "none": None}
    if text.lower() in lowered:
        return lowered[text.lower()]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def matches(value: Any, annotation: Any) -> bool:
    """Whether a value is of an annotated type; a whole number is also a real one."""
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
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (None, types.NoneType):
        return value is None
    return isinstance(value, annotation)


def describe(annotation: Any) -> str:
    """An annotation in words."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe, args))
    if origin is tuple:
        return f"a tuple such as ({', '.join(['1'] * max(2, len(args)))})"
    words = {float: "a number", int: "an integer", bool: "True or False", str: "a string", types.NoneType: "None"}
    return words.get(annotation, str(annotation))
