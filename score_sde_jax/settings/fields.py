"""Values of settings: parsing of flags, types and ranges."""

import ast
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from score_sde_jax.ranges import NotEmpty, Range

LONGEST = 120
"""Characters of a value in a message."""


def parse(text: str, annotation: Any) -> Any:
    """Parse the text of a flag.

    Args:
        text: a word of a `Literal`; true, false or none in any case; a Python literal; any other text is a string.
        annotation: type of the key. An integer is converted for a float, and a whole number such as 1e5 for an
            integer. A string may look like a number, such as a folder 2024.
    """
    kinds = list(alternatives(annotation))
    if any(typing.get_origin(kind) is typing.Literal and text in typing.get_args(kind) for kind in kinds):
        return text
    value = _literal(text)
    if float in kinds and text.lower().lstrip("+-") in ("inf", "infinity", "nan"):
        return float(text)
    if type(value) is float and int in kinds and float not in kinds and value.is_integer():
        return int(value)
    if type(value) is int and float in kinds and int not in kinds and abs(value) < 2**53:
        return float(value)
    return text if str in kinds and not matches(value, annotation) else value


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):  # all that literal_eval documents
        return text


def bare(annotation: Any) -> Any:
    """Return an annotation without its marks."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union, or the one type, without marks."""
    kind = bare(annotation)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        for arg in typing.get_args(kind):
            yield from alternatives(arg)
    else:
        yield kind


def matches(value: Any, annotation: Any) -> bool:
    """Return whether a value has the annotated type; integers count as floats too."""
    annotation = bare(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True
    if origin is typing.Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
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


def excludes(annotation: Any, value: Any) -> Range | NotEmpty | None:
    """Return the range of an annotation that does not contain a value of its type; None if there is none."""
    if typing.get_origin(annotation) is Annotated:
        kind, *marks = typing.get_args(annotation)
        bounds = (mark for mark in marks if isinstance(mark, Range | NotEmpty))
        return next((mark for mark in bounds if value not in mark), None) or excludes(kind, value)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return next((excludes(arg, value) for arg in args if matches(value, arg)), None)
    if origin is tuple:
        return next((out for item in value if (out := excludes(args[0], item)) is not None), None)
    return None


def ranges(annotation: Any) -> Iterator[Range]:
    """Yield the ranges of an annotation: its own, and those of the types of a union or of the items of a tuple."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        yield from (mark for mark in args[1:] if isinstance(mark, Range))
        yield from ranges(args[0])
    elif origin in (typing.Union, types.UnionType):
        for arg in args:
            yield from ranges(arg)
    elif origin is tuple:
        yield from ranges(args[0])


def shown(value: Any) -> str:
    """Return a value for a message, cut if it is long."""
    try:
        text = str(value)
    except ValueError:  # an integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def describe(annotation: Any) -> str:
    """Return an annotation in words."""
    annotation = bare(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe, args))
    if origin is tuple:
        return "numbers such as 1,2"
    if origin is Mapping:
        return "names with numbers, such as {'slow': 0.9999}"
    words = {float: "a number", int: "an integer", bool: "True or False", str: "a string", types.NoneType: "None"}
    return words.get(annotation, str(annotation))
