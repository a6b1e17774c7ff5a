"""Checkpoints come back bit for bit, and a damaged one costs no more than itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_sde_jax.checkpoint import Checkpoints
from score_sde_jax.errors import UserError
from score_sde_jax.sharding import DataParallel
from score_sde_jax.state import init_state


def make(key):
    return {"w": jax.random.normal(key, (64, 33)), "step": jnp.zeros((), jnp.int32)}


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, make(jax.random.key(step)))
    checkpoints.close()
    return tmp_path / "checkpoints"


def abstract():
    return DataParallel().abstract(make, jax.random.key(0))


def damage(directory):
    """Cut every data file of a checkpoint in half."""
    for file in directory.rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_round_trip_of_the_latest_two(saved):
    checkpoints = Checkpoints(saved)
    assert checkpoints.steps() == [2, 3]
    step, state = checkpoints.restore_latest(abstract())
    assert step == 3
    np.testing.assert_array_equal(state["w"], make(jax.random.key(3))["w"])
    np.testing.assert_array_equal(checkpoints.restore(2, abstract())["w"], make(jax.random.key(2))["w"])
    with pytest.raises(UserError, match=r"no checkpoint of step 7; there are \[2, 3\]"):
        checkpoints.restore(7, abstract())


def test_a_damaged_checkpoint_falls_back_and_says_so(saved, caplog):
    damage(saved / "3")
    checkpoints = Checkpoints(saved, keep=2)
    step, state = checkpoints.restore_latest(abstract())
    assert step == 2 and "checkpoints/3 cannot be read" in caplog.text
    np.testing.assert_array_equal(state["w"], make(jax.random.key(2))["w"])
    checkpoints.save(3, make(jax.random.key(30)))  # the run reaches step 3 again
    checkpoints.close()
    _, state = Checkpoints(saved).restore_latest(abstract())
    np.testing.assert_array_equal(state["w"], make(jax.random.key(30))["w"])


def test_no_readable_checkpoint(saved, tmp_path):
    for step in (2, 3):
        damage(saved / str(step))
    with pytest.raises(UserError, match=r"none of the checkpoints \[2, 3\] can be read"):
        Checkpoints(saved).restore_latest(abstract())
    assert Checkpoints(tmp_path / "new").restore_latest(abstract()) is None


def test_a_training_state_comes_back_bit_for_bit(tmp_path):
    def make_state(key):
        return init_state({"a": {"w": jax.random.normal(key, (3, 5))}, "b": jnp.full((), 1e-42)}, optax.adam(1e-3))

    parallel, key = DataParallel(), jax.random.key(1)
    state = parallel.init(make_state, key)
    updates, moments = optax.adam(1e-3).update(state.params, state.opt_state, state.params)
    state = state.replace(step=state.step + 7, params=optax.apply_updates(state.params, updates), opt_state=moments)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(7, state)
    checkpoints.close()
    back = Checkpoints(tmp_path / "checkpoints").restore(7, parallel.abstract(make_state, jax.random.key(0)))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for found, saved in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert found.dtype == saved.dtype and np.asarray(found).tobytes() == np.asarray(saved).tobytes()
    assert int(back.step) == 7


def test_a_state_of_another_shape_is_refused_by_name(saved):
    def other(key):
        return {"w": jax.random.normal(key, (64, 34)), "step": jnp.zeros((), jnp.int32)}

    with pytest.raises(UserError, match=r"checkpoints/3 cannot be read \(.+\)") as raised:
        Checkpoints(saved).restore(3, DataParallel().abstract(other, jax.random.key(0)))
    assert "\n" not in str(raised.value)


def test_what_a_kill_leaves_is_no_checkpoint(saved):
    (saved / "9.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(saved)
    assert checkpoints.steps() == [2, 3] and checkpoints.restore_latest(abstract())[0] == 3
