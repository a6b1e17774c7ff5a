"""Sections whose key `name` picks an entry of a registry; the parameters of the entry are further keys."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from score_sde_jax.errors import UserError

AUTO = "auto"
"""Value of a key that is computed from the data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A section whose `name` picks an entry of a registry; a call of the section calls the entry with its own keys.

    Attributes:
        entry: the picked entry of the registry.
        own: keys of the entry; the other keys belong to the section, independent of the entry.
        path: dotted path of the section.
    """

    entry: ClassVar[Any]
    own: ClassVar[tuple[str, ...]]
    path: ClassVar[str]

    if TYPE_CHECKING:
        name: str

        def __getattr__(self, key: str) -> Any: ...

    def __call__(self, *args: Any, **more: Any) -> Any:
        """Call the entry with its own keys; its ValueError becomes a UserError with the path of the section."""
        try:
            return self.bind()(*args, **more)
        except ValueError as error:
            raise UserError(f"--config.{self.path}: {error}") from error

    def bind(self) -> Callable[..., Any]:
        """Return the entry with its own keys bound."""
        options = self.options()
        assert AUTO not in options.values(), f'{self.path}: a key is still "auto"'
        return functools.partial(type(self).entry, **options)

    def options(self) -> dict[str, Any]:
        """Return the values of the entry's own keys."""
        return {key: getattr(self, key) for key in self.own}

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key; `default` if the section has no such key."""
        return getattr(self, key, default)


@dataclasses.dataclass(frozen=True, eq=False)
class OneOf:
    """Annotation of a section that picks one entry of a registry.

    Attributes:
        registry: entries by name.
        default: name of the default entry; None if the name is required.
        auto: keys that may be "auto".
    """

    registry: Mapping[str, Any]
    default: str | None = None
    auto: tuple[str, ...] = ()

    def pick(self, base: type[Choice], name: Any, path: str) -> type[Choice]:
        """Return the section's class for an entry.

        Args:
            base: class of the section without the keys of an entry.
            name: name of the entry; None picks the default.
            path: dotted path of the section.

        Raises:
            UserError: the registry has no such entry.
        """
        if name is None:
            name = self.default
        if not isinstance(name, str) or name not in self.registry:
            problem = " is missing" if name is None else f"={name}"
            raise UserError(f"--config.{path}.name{problem}: choose one of {', '.join(self.registry)}")
        return _section(base, self.registry[name], name, path, self.auto)  # type: ignore[arg-type]


def arguments(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters that are keys of the settings: those with a default and the keyword-only ones.

    Args:
        constructor: entry of a registry.
    """
    return {
        key: parameter
        for key, parameter in inspect.signature(constructor).parameters.items()
        if (parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY)
        and key not in ("parent", "name")  # Flax adds them to every module
    }


@functools.cache
def _section(base: type[Choice], entry: Callable[..., Any], name: str, path: str, auto: tuple[str, ...]) -> type:
    """Return a subclass of `base` with the entry's own keys as fields."""
    fields: list[Any] = [("name", str, dataclasses.field(default=name))]
    for key, parameter in arguments(entry).items():
        if key in typing.get_type_hints(base):
            continue  # a key of the section itself
        kind = Annotated[parameter.annotation, AUTO] if key in auto else parameter.annotation
        if parameter.default is parameter.empty:
            fields.append((key, kind))
        else:
            fields.append((key, kind, dataclasses.field(default=parameter.default)))
    own = tuple(key for key, *_ in fields[1:])
    namespace = {"entry": staticmethod(entry), "own": own, "path": path}
    return dataclasses.make_dataclass(name, fields, bases=(base,), namespace=namespace, frozen=True, kw_only=True)
