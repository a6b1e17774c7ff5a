"""The range of every number in the settings: the bounds are accepted, and values beyond are refused."""

import math

import pytest
from experiments import loaded
from numeric_keys import numbers, types

from score_sde_jax import settings
from score_sde_jax.errors import UserError
from score_sde_jax.settings.fields import alternatives, excludes, ranges

NUMBERS = [pytest.param(*values, id=name) for name, *values in numbers()]


@pytest.mark.parametrize(("picks", "path", "hint"), NUMBERS)
def test_every_number_has_a_range_whose_ends_hold(picks, path, hint):
    (bound,) = set(ranges(hint))
    assert math.isfinite(bound.low) and math.isfinite(bound.high)
    low, high = bound.low, bound.high
    if int in types(hint):
        first, last, beyond = low, high - 1, [low - 1, high, 10**400]
    else:
        first = math.nextafter(low, math.inf) if bound.exclusive else float(low)
        last, beyond = math.nextafter(high, -math.inf), [math.nextafter(first, -math.inf), float(high)]
        beyond += [math.inf, -math.inf, math.nan]

    def written(value):
        return value if {int, float} & set(alternatives(hint)) else (value, value)

    assert excludes(hint, written(first)) is None and excludes(hint, written(last)) is None
    for value in map(written, beyond):
        assert excludes(hint, value) is bound
    text = str(written(beyond[0]))
    with pytest.raises(UserError) as refused:
        settings.from_config(loaded("toy" if path.startswith("data") else "digits"), [*picks, f"{path}={text}"])
    # the config of digits shares the number of its levels between sections, the first of which is named
    assert str(refused.value).endswith(
        f".{path.rpartition('.')[2]}={text}: {bound}".removeprefix("." * ("." not in path))
    )


def test_a_number_that_sections_share_is_not_set_to_two_values():
    levels = ["loss.times.num_levels", "parameterization.condition.num_levels"]
    config = settings.from_config(loaded("digits"), [f"{levels[0]}=7"])
    assert config.loss.times.num_levels == config.parameterization.condition.num_levels == 7
    settings.from_config(loaded("digits"), [f"{path}=7" for path in levels])
    with pytest.raises(UserError, match=rf"^--config\.{levels[0]}=7: contradicts --config\.{levels[1]}=5"):
        settings.from_config(loaded("digits"), [f"{levels[0]}=7", f"{levels[1]}=5"])


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("train.steps", "1e3", 1000),
        ("train.steps", "1_000", 1000),
        ("optimizer.gradient_clip", "1", 1.0),
        ("eval.dir", "2024", "2024"),
        ("eval.dir", "none", None),
        ("eval.dir", "'none'", "none"),
        ("eval.split", "True", "True"),
    ],
)
def test_a_value_means_what_its_type_says(path, text, value):
    section, key = path.split(".")
    read = getattr(getattr(settings.from_config(loaded("digits"), [f"{path}={text}"]), section), key)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize("text", ["{[]:1}", "{{}}", "-" * 20_000 + "1", "9" * 5000, "1e999", "nan", "(", "\0", "²"])
def test_a_value_that_is_no_integer(text):
    with pytest.raises(UserError, match=r"^--config\.train\.steps=.{1,125}: (expected an integer|must be >= 1)"):
        settings.from_config(loaded("digits"), [f"train.steps={text}"])
