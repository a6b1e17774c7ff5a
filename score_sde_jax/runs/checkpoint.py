"""Checkpoints of the training state, which Orbax saves in the background and restores onto any devices.

Orbax renames a complete checkpoint into place. A 32-bit sum of each leaf detects corrupted bytes.
"""

import contextlib
import dataclasses
import gc
import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from score_sde_jax.devices.processes import is_first, wait_for_all
from score_sde_jax.errors import RunError, UserError
from score_sde_jax.version import __version__

STATE, CHECKSUMS = "state", "checksums"
OPTIMIZER = "opt_state/"
"""Start of the paths of the optimizer's state."""
AVERAGES = "averages/"
DAMAGED = ".damaged"
"""Suffix of the name of a quarantined checkpoint."""


Optimizer = Callable[[PyTree], PyTree]
"""From parameters to the optimizer's state before the first step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retention:
    """Which checkpoints are kept.

    Attributes:
        keep: Number of latest checkpoints, >= 1.
        keep_every: Checkpoints whose step is a multiple of it are kept too; 0 for none.
    """

    keep: int = 1
    keep_every: int = 0


class DamagedError(UserError):
    """A corrupted checkpoint."""


class Checkpoints:
    """The checkpoints of one run, `directory/<step>/`.

    A save that is cut short leaves a directory of another name, which is ignored and cleaned up.

    Args:
        directory: Path or gs:// address of the checkpoints.
        retention: Which checkpoints are kept; None for a reader, which deletes nothing.
        about: JSON values that every checkpoint stores in addition to the version of this package.
    """

    def __init__(
        self, directory: epath.PathLike, retention: Retention | None = None, about: dict[str, Any] | None = None
    ) -> None:
        path = epath.Path(directory)
        # Orbax needs absolute paths. Those of a bucket are, but `absolute` puts the working directory before them.
        self.directory = path if "://" in str(path) else path.absolute()
        self.about = {"version": __version__, **(about or {})}
        policies = ocp.training.preservation_policies
        kept: list[Any] = [policies.LatestN(retention.keep if retention else 1)]
        if retention and retention.keep_every:
            kept.append(policies.EveryNSteps(retention.keep_every))
        with _quiet():
            self._checkpointer = ocp.training.Checkpointer(
                self.directory,
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=retention is not None,  # who only reads removes nothing
            )
        if retention:
            logging.getLogger("absl").addFilter(_below_error)  # a save that fails raises an exception too
        if sys.unraisablehook is sys.__unraisablehook__:
            sys.unraisablehook = _unless_late
        # A load that failed may leave this coroutine of Orbax until the process ends.
        warnings.filterwarnings("ignore", ".*_background_load' was never awaited", RuntimeWarning)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in increasing order."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def save(self, step: int, state: PyTree, **more: Any) -> None:
        """Save in the background; a checkpoint of the same step is replaced.

        Args:
            step: Training step of the state.
            state: Arrays.
            **more: JSON values that are stored with the state.

        Raises:
            RunError: This save or the one before it cannot be written.
        """
        items = {STATE: state, CHECKSUMS: _checksums(state)}
        try:
            self._checkpointer.save_checkpointables_async(
                step, items, force=True, overwrite=step in self.steps(), custom_metadata=self.about | more
            )
        except Exception as error:  # orbax and tensorstore raise many kinds for a disk that is full
            raise RunError(f"checkpoint {self.directory / str(step)} cannot be saved ({_reason(error)})") from error

    def restore_latest(
        self, abstract: PyTree, *, whole: bool = True, optimizer: Optimizer | None = None
    ) -> tuple[int, PyTree] | None:
        """Return step and state of the newest readable checkpoint; None if there is no checkpoint.

        A corrupted checkpoint is named in a warning, and the one before it is tried. The arguments are those of
        `restore`.

        Raises:
            UserError: There are checkpoints but none is readable, or one holds another model.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                state = self.restore(step, abstract, whole=whole, optimizer=optimizer)
            except DamagedError as error:
                logging.warning("%s; trying the checkpoint before it", error)
                continue
            return step, state
        if steps:
            raise UserError(f"{self.directory}: none of the checkpoints {steps} can be read")
        return None

    def restore(self, step: int, abstract: PyTree, *, whole: bool = True, optimizer: Optimizer | None = None) -> PyTree:
        """Return the state of one step.

        Args:
            step: Step of the checkpoint.
            abstract: Shapes, types and placement of the arrays.
            whole: Whether `abstract` is the whole state; otherwise a dict of the entries to read.
            optimizer: Function from parameters to a fresh optimizer state. With it, a state of another optimizer or
                with other averages is adapted: new parts of the optimizer state start fresh, and a new average starts
                from that of `train.ema_decay`.

        Raises:
            DamagedError: The checkpoint is corrupted.
            UserError: There is no such checkpoint, or it holds another model; the first leaf that differs is named.
        """
        if step not in self.steps():
            steps = ", ".join(map(str, self.steps())) or "none"
            raise UserError(f"--checkpoint={step}: no checkpoint of this step in {self.directory}; there are {steps}")
        path = self.directory / str(step)
        metadata = self._metadata(step)
        saved, version = metadata.metadata[STATE], metadata.custom_metadata["version"]
        for name, difference in _differences(saved, abstract, whole):
            if optimizer and name.startswith((OPTIMIZER, AVERAGES)):
                continue
            if name.startswith(AVERAGES):
                kept = ", ".join(("ema", *(saved.get("averages") or {})))
                raise UserError(f"checkpoint {path} has the averages {kept}, not {name.split('/')[1]}")
            written = "" if version == __version__ else f"; written by version {version}, this is {__version__}"
            raise UserError(f"checkpoint {path} holds another model: {difference}{written}")
        if optimizer is None:
            return self._load(step, abstract)
        old = _placed_by_name(saved["opt_state"], abstract.opt_state)
        known = {name: tree for name, tree in abstract.averages.items() if name in (saved.get("averages") or {})}
        wanted = {name: getattr(abstract, name) for name in ("step", "params", "ema_params", "skipped")}
        state = self._load(step, wanted | {"opt_state": old} | ({"averages": known} if known else {}))
        averages = state.pop("averages", {})
        for name in abstract.averages:  # what older checkpoints lack starts from the average that they have
            averages.setdefault(name, jax.tree.map(jnp.copy, state["ema_params"]))
        opt_state = _taken_over(state, abstract.opt_state, optimizer)
        return abstract.replace(**state | {"opt_state": opt_state, "averages": averages})

    def _load(self, step: int, wanted: PyTree) -> PyTree:
        """Load some entries of a checkpoint and compare them with their checksums."""
        path = self.directory / str(step)
        checksums = _placed_like(jax.eval_shape(_checksums, wanted), wanted)
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        items = {STATE: wanted, CHECKSUMS: checksums}
        with context:
            loaded = _read(path, lambda: self._checkpointer.load_checkpointables(step, items))
        for (name, now), then in zip(
            _by_path(_checksums(loaded[STATE])).items(), jax.tree.leaves(loaded[CHECKSUMS]), strict=True
        ):
            if int(now) != int(then):
                raise DamagedError(f"checkpoint {path} cannot be read ({name} is not what was saved)")
        return loaded[STATE]

    def about_step(self, step: int) -> dict[str, Any]:
        """Return the JSON values of a checkpoint; DamagedError if they are incomplete."""
        return dict(self._metadata(step).custom_metadata)

    def _metadata(self, step: int) -> Any:
        """Return Orbax's metadata of a checkpoint; DamagedError if they are incomplete, which Orbax may not report."""

        def read() -> Any:
            metadata = self._checkpointer.checkpointables_metadata(step)
            if not metadata.custom_metadata or not metadata.metadata.get(STATE):
                raise ValueError("its metadata are incomplete")
            return metadata

        return _read(self.directory / str(step), read)

    def close(self) -> None:
        """Wait for the save under way; RunError if it cannot be written."""
        try:
            self._checkpointer.close()
        except Exception as error:
            raise RunError(f"{self.directory}: the last checkpoint cannot be saved ({_reason(error)})") from error

    def quarantine(self, steps: list[int]) -> None:
        """Rename corrupted checkpoints, so that the run can save these steps again."""
        if is_first():
            for step in steps:
                path = self.directory / str(step)
                target = path.with_name(path.name + DAMAGED)
                if target.exists():
                    target.rmtree()
                path.rename(target)
        wait_for_all("quarantine damaged checkpoints")
        self._checkpointer.reload()


@jax.jit
def _checksums(state: PyTree) -> PyTree:
    """Return the sum of the 32-bit words of each leaf modulo 2^32.

    Every change within one word changes the sum. Changes of several words can cancel; Orbax checks the structure of its
    files itself.
    """

    def of(leaf: jax.Array) -> jax.Array:
        width = min(leaf.dtype.itemsize, 4)
        words = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * width}"))
        return jnp.sum(words.astype(jnp.uint32), dtype=jnp.uint32)

    return jax.tree.map(of, state)


def fingerprint(params: PyTree) -> str:
    """Return 16 hexadecimal digits that differ for other parameters, from the same sums as in checkpoints."""
    sums = np.array([int(total) for total in jax.tree.leaves(_checksums(params))], np.uint32)
    return hashlib.sha256(sums.tobytes()).hexdigest()[:16]


def _placed_like(leaves: PyTree, state: PyTree) -> PyTree:
    """The shapes, whole on every device that the state lies on."""
    whole = _whole(state)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), leaves)


def _whole(state: PyTree) -> Any:
    sharding = jax.tree.leaves(state)[0].sharding
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec())
    return sharding


def _placed_by_name(saved: PyTree, abstract: PyTree) -> PyTree:
    """Shapes of a saved optimizer's state, each placed as the leaf of its name is, or whole if there is none."""
    places = {_name(path, leaf): leaf.sharding for path, leaf in _by_path(abstract).items()}

    def placed(path: tuple, leaf: Any) -> jax.ShapeDtypeStruct:
        name = _name(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places.get(name, _whole(abstract)))

    return jax.tree.map_with_path(placed, saved)


def _taken_over(state: dict[str, PyTree], abstract: PyTree, optimizer: Optimizer) -> PyTree:
    """The optimizer's state with the leaves that the saved one has, of the same name, shape and type.

    Names leave out places in a chain, which differ as soon as one of its links does. Of leaves with one name, such as
    the counts of several links, the first is taken for the first. What the saved state lacks starts fresh.
    """
    known: dict[tuple, list[jax.Array]] = {}
    for path, leaf in _by_path(state["opt_state"]).items():
        known.setdefault(_name(path, leaf), []).append(leaf)
    names = [_name(path, leaf) for path, leaf in _by_path(abstract).items()]
    leaves = [known[name].pop(0) if known.get(name) else None for name in names]
    if any(leaf is None for leaf in leaves):
        fresh = jax.tree.leaves(optimizer(state["params"]))
        leaves = [new if old is None else old for old, new in zip(leaves, fresh, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _name(path: str, leaf: Any) -> tuple:
    """Name of a leaf of an optimizer's state without places in a chain, its shape and type."""
    return tuple(part for part in path.split("/") if not part.isdigit()), tuple(leaf.shape), jnp.dtype(leaf.dtype)


def _by_path(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _differences(saved: PyTree, wanted: PyTree, whole: bool) -> Iterator[tuple[str, str]]:
    """Path and one line for every leaf that one of two states lacks or that differs in shape or type.

    Unless the `whole` state is wanted, the saved one may have more.
    """
    there, here = _by_path(saved), _by_path(wanted)
    for path in [*here, *(path for path in there if whole and path not in here)]:
        describe = [
            f"{tuple(leaf.shape)} {jnp.dtype(leaf.dtype)}" if leaf is not None else "nothing"
            for leaf in (there.get(path), here.get(path))
        ]
        if describe[0] != describe[1]:
            yield path, f"{path} is {describe[0]} there, {describe[1]} here"


def _read(path: epath.Path, read: Callable[[], Any]) -> Any:
    """Return read(); DamagedError for any error, after which nothing that Orbax has left behind reports it again."""
    try:
        with _quiet():
            return read()
    except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
        reason, cause = _reason(error), error if _debugs() else None
    with _quiet():
        gc.collect()  # Python and asyncio report unawaited coroutines and failed tasks when they are collected
    raise DamagedError(f"checkpoint {path} cannot be read ({reason})") from cause


def _debugs() -> bool:
    return logging.getLogger(__name__).isEnabledFor(logging.DEBUG)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Orbax, and the event loop that it uses, unless this module's logger has the level DEBUG."""
    if _debugs():
        yield
        return
    loggers, hook = [logging.getLogger(name) for name in ("absl", "asyncio")], sys.unraisablehook
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        sys.unraisablehook = _ignore
        for logger in loggers:
            logger.addFilter(_ignore)
        try:
            yield
        finally:
            sys.unraisablehook = hook
            for logger in loggers:
                logger.removeFilter(_ignore)


def _ignore(message: Any) -> bool:
    """Return False, for a log record that is left out."""
    del message
    return False


def _below_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _unless_late(unraisable: Any) -> None:
    """sys.unraisablehook that leaves out what a save or a load that failed leaves behind.

    Orbax does not wait for its other arrays: there are thousands of callbacks of tensorstore for an event loop that has
    ended, and coroutines that are collected at any time.
    """
    code = getattr(unraisable.object, "cr_code", None)
    of_orbax = code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename
    if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _reason(error: BaseException) -> str:
    """First line of the innermost cause, where orbax keeps what happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
