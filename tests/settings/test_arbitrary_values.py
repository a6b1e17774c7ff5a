"""Arbitrary text for any key gives settings, or one line that names the key as typed."""

import pytest
from experiments import loaded
from hypothesis import given, settings, strategies
from numeric_keys import numbers

from score_sde_jax.errors import UserError
from score_sde_jax.settings import from_config
from score_sde_jax.settings.fields import parse

PATHS = sorted({path for _, _, path, _ in numbers()} | {"data.dir", "eval.split", "train.averages.slow"})
TEXT = strategies.text(max_size=30)
ATOMS = strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | TEXT
LITERALS = strategies.recursive(
    ATOMS, lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(TEXT, inner), max_leaves=5
)
TYPED = TEXT | LITERALS.map(repr) | strategies.from_regex(r"[-+]?[0-9_.eE]{0,12}", fullmatch=True)
DIGITS = loaded("digits")


@settings(deadline=None, derandomize=True, max_examples=300)
@given(path=strategies.sampled_from(PATHS), text=TYPED)
def test_any_text_for_any_key_is_taken_or_refused_by_name(path, text):
    try:
        from_config(DIGITS.copy_and_resolve_references(), [f"{path}={text}"])
    except UserError as error:
        assert str(error).startswith("--config.") and len(str(error)) < 1500


@settings(deadline=None, derandomize=True, max_examples=300)
@given(text=TEXT | LITERALS.map(repr))
def test_any_text_is_a_value(text):
    for annotation in (int, float, bool, str, str | None, tuple[int, ...], int | tuple[int, int]):
        parse(text, annotation)


@pytest.mark.parametrize("value", [0, 7, -3, 2**40, True, 0.1, 1e-300, -2.5, (1, 2), "text", None])
def test_a_value_survives_its_text(value):
    annotation = tuple[int, ...] if isinstance(value, tuple) else type(value) if value is not None else int | None
    assert parse(repr(value) if not isinstance(value, str) else value, annotation) == value
