"""Sections of the settings whose key `name` picks an entry of a registry, which brings keys of its own."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from score_sde_jax.errors import UserError

AUTO = "auto"
"""The value of a key that is chosen from the data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A section whose `name` picks an entry of a registry; calling it calls the entry with the entry's own keys."""

    entry: ClassVar[Any]
    own: ClassVar[tuple[str, ...]]
    """Keys that belong to the entry; the others belong to the section, whichever entry is picked."""
    path: ClassVar[str]

    if TYPE_CHECKING:
        name: str

        def __getattr__(self, key: str) -> Any: ...

    def __call__(self, *args: Any, **more: Any) -> Any:
        """What the entry returns; UserError, with the path of the section, for a value that the entry refuses."""
        try:
            return self.bind()(*args, **more)
        except ValueError as error:
            raise UserError(f"--config.{self.path}: {error}") from error

    def bind(self) -> Callable[..., Any]:
        """The entry with its own keys bound."""
        options = self.options()
        assert AUTO not in options.values(), f"{self.path}: a key is not chosen yet"
        return functools.partial(type(self).entry, **options)

    def options(self) -> dict[str, Any]:
        """Values of the entry's own keys."""
        return {key: getattr(self, key) for key in self.own}

    def get(self, key: str, default: Any = None) -> Any:
        """Value of a key, or `default` if the entry has no such key."""
        return getattr(self, key, default)


@dataclasses.dataclass(frozen=True, eq=False)
class From:
    """Mark of a section that picks from `registry`, by default the entry `default`; keys in `auto` may be "auto"."""

    registry: Mapping[str, Any]
    default: str | None = None
    auto: tuple[str, ...] = ()

    def pick(self, base: type[Choice], name: Any, path: str) -> type[Choice]:
        """The section's class for the entry of this name; UserError if there is none."""
        if name is None:
            name = self.default
        if not isinstance(name, str) or name not in self.registry:
            wrong = " is missing" if name is None else f"={name}"
            raise UserError(f"--config.{path}.name{wrong}: choose one of {', '.join(self.registry)}")
        return _section(base, self.registry[name], name, path, self.auto)  # type: ignore[arg-type]


def arguments(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters that settings may give: those with a default and those that are keyword-only."""
    return {
        key: parameter
        for key, parameter in inspect.signature(constructor).parameters.items()
        if (parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY)
        and key not in ("parent", "name")  # flax gives these to every module
    }


@functools.cache
def _section(base: type[Choice], entry: Callable[..., Any], name: str, path: str, auto: tuple[str, ...]) -> type:
    """`base` with the entry's own keys as fields."""
    fields: list[Any] = [("name", str, dataclasses.field(default=name))]
    for key, parameter in arguments(entry).items():
        if key in typing.get_type_hints(base):
            continue  # given by another key of the section
        kind = Annotated[parameter.annotation, AUTO] if key in auto else parameter.annotation
        if parameter.default is parameter.empty:
            fields.append((key, kind))
        else:
            fields.append((key, kind, dataclasses.field(default=parameter.default)))
    own = tuple(key for key, *_ in fields[1:])
    namespace = {"entry": staticmethod(entry), "own": own, "path": path}
    return dataclasses.make_dataclass(name, fields, bases=(base,), namespace=namespace, frozen=True, kw_only=True)
