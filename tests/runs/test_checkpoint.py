"""Checkpoints are restored bit for bit, and a corrupted one affects no other."""

import logging
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from patience import time_limit

from score_sde_jax.devices.parallel import Jit
from score_sde_jax.errors import UserError
from score_sde_jax.runs import checkpoint as module
from score_sde_jax.runs.checkpoint import Checkpoints, Retention
from score_sde_jax.runs.step import init_state


def make(key):
    return {"w": jax.random.normal(key, (64, 33)), "step": jnp.zeros((), jnp.int32)}


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", Retention(keep=2))
    for step in (1, 2, 3):
        checkpoints.save(step, make(jax.random.key(step)))
    checkpoints.close()
    return tmp_path / "checkpoints"


def abstract():
    return Jit().abstract(make, jax.random.key(0))


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
    with pytest.raises(UserError, match=r"--checkpoint=7: no checkpoint of this step in .*; there are 2, 3"):
        checkpoints.restore(7, abstract())


def test_a_damaged_checkpoint_falls_back_and_says_so(saved, caplog):
    damage(saved / "3")
    checkpoints = Checkpoints(saved, Retention(keep=2))
    step, state = checkpoints.restore_latest(abstract())
    assert step == 2 and "checkpoints/3 cannot be read" in caplog.text
    checkpoints.quarantine([3])
    assert (saved / "3.damaged").is_dir() and checkpoints.steps() == [2]
    np.testing.assert_array_equal(state["w"], make(jax.random.key(2))["w"])
    checkpoints.save(3, make(jax.random.key(30)))  # the run reaches step 3 again
    checkpoints.close()
    _, state = Checkpoints(saved).restore_latest(abstract())
    np.testing.assert_array_equal(state["w"], make(jax.random.key(30))["w"])


@pytest.mark.parametrize("debug", [False, True])
def test_the_warnings_of_orbax_are_shown_on_request_only(saved, caplog, debug):
    if debug:
        caplog.set_level(logging.DEBUG, "score_sde_jax")
    (saved / "3" / "_CHECKPOINT_METADATA").unlink()
    assert Checkpoints(saved).restore_latest(abstract())[0] == 2
    assert ("Metadata file does not exist" in caplog.text) == debug
    assert [record.name for record in caplog.records if "trying the checkpoint before it" in record.message] == ["root"]
    logging.getLogger("absl").warning("a later warning")
    assert "a later warning" in caplog.text


def test_no_readable_checkpoint(saved, tmp_path):
    for step in (2, 3):
        damage(saved / str(step))
    with pytest.raises(UserError, match=r"none of the checkpoints \[2, 3\] can be read"):
        Checkpoints(saved).restore_latest(abstract())
    assert Checkpoints(tmp_path / "new").restore_latest(abstract()) is None


def test_the_state_of_another_optimizer_is_taken_over_by_names(tmp_path):
    """Leaves that both optimizers have are restored, at any position in their chains; new leaves start fresh."""
    params = {"w": jnp.arange(6.0).reshape(2, 3)}
    state = init_state(params, optax.adam(optax.constant_schedule(1e-3)))
    moments = jax.tree.map(lambda leaf: leaf + 7, state.opt_state)
    checkpoints = Checkpoints(tmp_path, Retention())
    checkpoints.save(1, state.replace(opt_state=moments))
    checkpoints.close()

    def restored(optimizer):
        shapes = jax.eval_shape(lambda: init_state(params, optimizer))
        place = jax.tree.leaves(params)[0].sharding
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)
        return Checkpoints(tmp_path).restore(1, abstract, optimizer=optimizer.init).opt_state

    longer = optax.chain(
        optax.trace(0.9),
        optax.adamw(optax.constant_schedule(1e-3), mask=lambda tree: jax.tree.map(lambda _: True, tree)),
    )
    trace, (adam, *_, schedule) = restored(longer)
    np.testing.assert_array_equal(trace.trace["w"], 0)  # new
    assert int(adam.count) == int(schedule.count) == 7
    for name in ("mu", "nu"):
        np.testing.assert_array_equal(getattr(adam, name)["w"], 7)
    shorter = restored(optax.adam(1e-3))
    assert int(shorter[0].count) == 7 and jax.tree.structure(shorter) == jax.tree.structure(
        optax.adam(1e-3).init(params)
    )


def test_a_training_state_comes_back_bit_for_bit(tmp_path):
    def make_state(key):
        return init_state({"a": {"w": jax.random.normal(key, (3, 5))}, "b": jnp.full((), 1e-42)}, optax.adam(1e-3))

    parallel, key = Jit(), jax.random.key(1)
    state = parallel.init(make_state, key)
    updates, moments = optax.adam(1e-3).update(state.params, state.opt_state, state.params)
    state = state.replace(step=state.step + 7, params=optax.apply_updates(state.params, updates), opt_state=moments)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(7, state)
    checkpoints.close()
    back = Checkpoints(tmp_path / "checkpoints").restore(7, parallel.abstract(make_state, jax.random.key(0)))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for actual, saved in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert actual.dtype == saved.dtype and np.asarray(actual).tobytes() == np.asarray(saved).tobytes()
    assert int(back.step) == 7


def test_a_flipped_bit_is_seen(saved):
    """The bit is in the bytes of the parameters, for which the compression has no checksum."""
    for position in (0.3, 0.6, 0.9):
        file = max(
            (file for file in (saved / "3" / "state").rglob("*") if file.is_file()), key=lambda f: f.stat().st_size
        )
        whole = file.read_bytes()
        flipped = bytearray(whole)
        flipped[int(position * len(whole))] ^= 1
        file.write_bytes(bytes(flipped))
        with pytest.raises(module.DamagedError, match="checkpoints/3 cannot be read"):
            Checkpoints(saved).restore(3, abstract())
        file.write_bytes(whole)
    Checkpoints(saved).restore(3, abstract())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8])
def test_the_checksum_changes_with_any_bit(dtype):
    leaf = jax.random.normal(jax.random.key(0), (7, 5)).astype(dtype)
    words = np.asarray(leaf).view(np.uint8).copy().ravel()
    before = int(module._checksums(leaf))
    for bit in range(0, 8 * len(words), 13):
        flipped = words.copy()
        flipped[bit // 8] ^= np.uint8(1 << bit % 8)
        assert int(module._checksums(flipped.view(leaf.dtype).reshape(7, 5))) != before


@pytest.mark.parametrize(
    ("other", "messages"),
    [
        (lambda key: make(key) | {"w": jnp.zeros((64, 34))}, r"w is \(64, 33\) float32 there, \(64, 34\) float32 here"),
        (lambda key: make(key) | {"w": jnp.zeros((64, 33), jnp.int8)}, r"w is .* float32 there, \(64, 33\) int8 here"),
        (lambda key: make(key) | {"more": jnp.zeros(3)}, r"more is nothing there, \(3,\) float32 here"),
        (lambda key: {"w": make(key)["w"]}, r"step is \(\) int32 there, nothing here"),
    ],
)
def test_another_model_is_refused_by_its_first_difference(saved, other, messages, monkeypatch):
    for restore in (lambda c, a: c.restore(3, a), lambda c, a: c.restore_latest(a)):
        with pytest.raises(UserError, match=rf"checkpoints/3 holds another model: {messages}$") as raised:
            restore(Checkpoints(saved), Jit().abstract(other, jax.random.key(0)))
        assert not isinstance(raised.value, module.DamagedError)
    monkeypatch.setattr(module, "__version__", "9.9")
    with pytest.raises(UserError, match=rf"{messages}; written by version .*, this is 9\.9$"):
        Checkpoints(saved).restore(3, Jit().abstract(other, jax.random.key(0)))


def test_what_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", Retention(keep=2, keep_every=4), {"config": {"seed": 3}})
    for step in range(1, 12):
        checkpoints.save(step, make(jax.random.key(step)), loss=0.5 * step)
    checkpoints.close()
    assert Checkpoints(tmp_path / "checkpoints").steps() == [4, 8, 10, 11]
    assert Checkpoints(tmp_path / "checkpoints").about_step(8) == {
        "version": module.__version__,
        "config": {"seed": 3},
        "loss": 4.0,
    }


def test_damage_to_what_is_kept(saved):
    """Also where another process removes the whole checkpoint after it was seen here."""
    checkpoints, kept = Checkpoints(saved), saved / "3" / "_CHECKPOINT_METADATA"
    damages = (lambda: kept.write_bytes(kept.read_bytes()[:200]), kept.unlink, lambda: shutil.rmtree(saved / "3"))
    for damage in damages:
        damage()
        with pytest.raises(module.DamagedError, match=r"^checkpoint .*checkpoints/3 cannot be read \(.+\)$"):
            checkpoints.about_step(3)


def test_what_a_kill_leaves_is_no_checkpoint(saved):
    (saved / "9.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(saved)
    assert checkpoints.steps() == [2, 3] and checkpoints.restore_latest(abstract())[0] == 3


FULL = """
import resource, sys
import jax
from score_sde_jax.runs.checkpoint import Checkpoints, Retention
from score_sde_jax.errors import RunError

checkpoints = Checkpoints(sys.argv[1], Retention(keep=2))
state = {f"w{i}": jax.random.normal(jax.random.key(i), (64, 33)) for i in range(20)}
checkpoints.save(1, state)
checkpoints._checkpointer.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # what a full disk does to whoever writes
try:
    checkpoints.save(2, state)
    checkpoints.close()
except RunError as error:
    print(error)
"""


def test_a_save_that_fails_is_one_line(tmp_path):
    """In a process of its own, with the output of the threads of orbax and tensorstore."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=time_limit(60)
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("\n") == 1, done.stderr[:2000]
    assert "cannot be saved (" in done.stdout
    assert Checkpoints(tmp_path).steps() == [1]


DAMAGES = """
import pathlib, sys
import jax, jax.numpy as jnp
from score_sde_jax.runs.checkpoint import Checkpoints
from score_sde_jax.devices.parallel import Jit

saved = pathlib.Path(sys.argv[1])
abstract = Jit().abstract(lambda key: {"w": jnp.zeros((64, 33)), "step": jnp.zeros((), jnp.int32)}, jax.random.key(0))
changes = {
    "gone": lambda file, whole: file.unlink(),
    "empty": lambda file, whole: file.write_bytes(b""),
    "cut": lambda file, whole: file.write_bytes(whole[: len(whole) // 2]),
    "garbage": lambda file, whole: file.write_bytes(bytes(byte ^ 0x5A for byte in whole)),
}
for file in [file for file in (saved / "3").rglob("*") if file.is_file()]:
    whole = file.read_bytes()
    for name, change in changes.items():
        change(file, whole)
        step, state = Checkpoints(saved).restore_latest(abstract)
        print(step, float(state["w"].sum()), file.relative_to(saved), name)
        file.write_bytes(whole)
"""


def test_damage_to_any_one_file_costs_no_more_than_its_checkpoint(saved):
    """In a process of its own: orbax leaves coroutines whose warnings would appear in later tests."""
    done = subprocess.run(
        [sys.executable, "-c", DAMAGES, str(saved)], capture_output=True, text=True, timeout=time_limit(60)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    for step, total, *what in lines:
        assert float(total) == float(make(jax.random.key(int(step)))["w"].sum()), what
    fell_back = {(file, how) for step, _, file, how in lines if step == "2"}
    names = ("_CHECKPOINT_METADATA", "state/_METADATA", "state/manifest.ocdbt", "checksums/manifest.ocdbt")
    assert {(f"3/{name}", how) for name in names for how in ("gone", "empty", "cut", "garbage")} <= fell_back
    told = [line for line in done.stderr.splitlines() if "trying the checkpoint before it" not in line]
    assert not told and done.stderr.count("\n") == len(fell_back), told  # nothing of orbax, tensorstore and asyncio


UNAWAITED = """
import builtins, pathlib, sys
from score_sde_jax.runs.checkpoint import Checkpoints

class Handler:
    async def _background_load(self): ...
    async def other(self): ...

Checkpoints(pathlib.Path(sys.argv[1])).close()
builtins.kept = [getattr(Handler(), sys.argv[2])()]
"""


@pytest.mark.parametrize(("name", "lines"), [("_background_load", 0), ("other", 1)])
def test_a_coroutine_of_orbax_that_lives_until_the_end_causes_no_warning(tmp_path, name, lines):
    done = subprocess.run([sys.executable, "-c", UNAWAITED, tmp_path, name], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("never awaited") == lines, done.stderr


def test_a_callback_that_comes_too_late_is_not_told(monkeypatch):
    messages = []
    monkeypatch.setattr(sys, "__unraisablehook__", messages.append)
    ours, of_orbax = (
        SimpleNamespace(cr_code=SimpleNamespace(co_filename=f"/site-packages/{package}/file.py"))
        for package in ("ours", "orbax/checkpoint")
    )
    late, left, *others = (
        SimpleNamespace(exc_value=RuntimeError(line), object=owner)
        for line, owner in (
            ("Event loop is closed", None),
            ("No such key", of_orbax),
            ("No such key", ours),
            ("No such key", None),
        )
    )
    for unraisable in (late, left, *others):
        module._unless_late(unraisable)
    assert messages == others
