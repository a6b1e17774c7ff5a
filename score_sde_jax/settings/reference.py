"""The reference of settings: every section, registry entry and key, with type, range, default and meaning."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from score_sde_jax.settings.choices import AUTO, OneOf
from score_sde_jax.settings.fields import describe, ranges
from score_sde_jax.settings.reading import section_types, value_hints

LISTS = ("Args:", "Attributes:")
ITEM = re.compile(r" {4}(?P<names>\w+(?:, \w+)*): (?P<text>.+)")


class Key(NamedTuple):
    """A key of a section, in words.

    Attributes:
        name: last part of the path.
        kind: type and range.
        default: value if the key is left out; None if the key must be given.
        meaning: line of the docstring; empty if there is none.
    """

    name: str
    kind: str
    default: str | None
    meaning: str


class Entry(NamedTuple):
    """A section, or one entry of the registry that the section picks from.

    Attributes:
        path: dotted path of the section.
        name: name of the entry; None for the keys that the section has with every entry.
        is_default: whether the section picks this entry if no name is given.
        summary: first sentence of the docstring.
        keys: keys in the order of their definition.
    """

    path: str
    name: str | None
    is_default: bool
    summary: str
    keys: tuple[Key, ...]


def entries() -> Iterator[Entry]:
    """Yield every section in the order of `Settings`, each followed by the entries of its registry."""
    texts = dict[str, dict[str, str]]()
    for path, section, one_of in section_types():
        parent, _, key = path.rpartition(".")
        texts[path] = meanings(section)
        keys = tuple(_keys(section, section, None))
        yield Entry(path, None, False, summary(section) if not path else texts[parent].get(key, ""), keys)
        if one_of is not None:
            yield from (_entry(path, section, one_of, name) for name in one_of.registry)


def summary(documented: Any) -> str:
    """Return the first sentence of a docstring."""
    paragraph = inspect.cleandoc(documented.__doc__ or "").partition("\n\n")[0]
    return " ".join(re.split(r"(?<=\.) (?=[A-Z])", " ".join(paragraph.split()))[:1])


def meanings(documented: Any) -> dict[str, str]:
    """Return the meanings in the lists `Args:` and `Attributes:` of a docstring and of those of base classes."""
    texts: dict[str, str] = {}
    for owner in reversed(getattr(documented, "__mro__", (documented,))):
        names: list[str] = []
        inside = False
        for line in inspect.cleandoc(owner.__doc__ or "").splitlines():
            if line and not line.startswith(" "):
                inside, names = line in LISTS, []
            elif inside and (item := ITEM.fullmatch(line)):
                names = item["names"].split(", ")
                texts |= dict.fromkeys(names, item["text"])
            elif inside and line.strip():
                texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts


def _entry(path: str, section: Any, one_of: OneOf, name: str) -> Entry:
    picked = one_of.pick(section, name, path)
    keys = tuple(_keys(picked, picked.entry, picked.own))
    return Entry(path, name, name == one_of.default, summary(picked.entry), keys)


def _keys(section: Any, documented: Any, names: tuple[str, ...] | None) -> Iterator[Key]:
    """Yield the values of a section's class, or those with these names, with the meanings of a docstring."""
    texts, fields = meanings(documented), {field.name: field for field in dataclasses.fields(section)}
    for key, (kind, marks) in value_hints(section).items():
        if names is None or key in names:
            yield Key(key, _in_words(kind, marks), _default(fields[key]), texts.get(key, ""))


def _in_words(kind: Any, marks: list[Any]) -> str:
    """Return type and range of a value in words."""
    bounds = [str(mark).removeprefix("must be ") for mark in ranges(Annotated[(kind, *marks)] if marks else kind)]
    return ", ".join([describe(kind) + (" or auto" if AUTO in marks else ""), *dict.fromkeys(bounds)])


def _default(field: dataclasses.Field) -> str | None:
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return None if field.default is dataclasses.MISSING else repr(field.default)
