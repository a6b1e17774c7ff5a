"""The check of annotations: each function that is defined anew checks its own arguments and results."""

import jax.numpy as jnp
import pytest
from annotations import checked
from jaxtyping import Array, Float, TypeCheckError, jaxtyped


def sum_of_each_row(axis):
    @jaxtyped(typechecker=checked)
    def total(x: Float[Array, "batch features"]) -> Float[Array, " batch"]:
        return x.sum(axis)

    return total


def test_every_definition_of_an_inner_function_checks_its_results():
    x = jnp.ones((2, 3))
    assert sum_of_each_row(axis=1)(x).tolist() == [3, 3]
    with pytest.raises(TypeCheckError, match="return value"):
        sum_of_each_row(axis=0)(x)
    with pytest.raises(TypeCheckError, match="parameters"):
        sum_of_each_row(axis=1)(x.astype(int))


def test_functions_of_one_name_with_other_annotations_have_other_checks():
    def double(x: int) -> int:
        return 2 * x

    first = checked(double)
    double.__annotations__["x"] = float
    assert checked(double) is not first and len({checked(double), checked(double)}) == 1
