"""Checkpoints of the training state: saved in the background, renamed into place when whole, restored onto any
devices.
"""

import logging
from pathlib import Path

from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from score_sde_jax.errors import UserError

STATE = "state"


class Checkpoints:
    """The checkpoints of one run, `directory/<step>/`, of which the latest `keep` are kept.

    A save that is cut short leaves a directory of another name, which is ignored and cleaned up.
    """

    def __init__(self, directory: Path, keep: int = 1) -> None:
        self.directory = directory.absolute()
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in increasing order."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def save(self, step: int, state: PyTree) -> None:
        """Save in the background; a checkpoint of the same step is replaced."""
        self._checkpointer.save_checkpointables_async(step, {STATE: state}, force=True, overwrite=step in self.steps())

    def restore_latest(self, abstract_state: PyTree) -> tuple[int, PyTree] | None:
        """Step and state of the newest checkpoint that can be read, or None where there is none.

        One that cannot be read is named in a warning and the one before it is tried.
        Raises UserError if there are checkpoints and none can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return step, self.restore(step, abstract_state)
            except UserError as error:
                logging.warning("%s; trying the checkpoint before it", error)
        if steps:
            raise UserError(f"{self.directory}: none of the checkpoints {steps} can be read")
        return None

    def restore(self, step: int, abstract_state: PyTree) -> PyTree:
        """State of one step, with the shapes, types and placement of `abstract_state`; UserError if it cannot be
        read.
        """
        if step not in self.steps():
            raise UserError(f"{self.directory}: no checkpoint of step {step}; there are {self.steps() or 'none'}")
        try:
            return self._checkpointer.load_checkpointables(step, {STATE: abstract_state})[STATE]
        except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
            raise UserError(f"checkpoint {self.directory / str(step)} cannot be read ({_reason(error)})") from error

    def close(self) -> None:
        """Wait for the save under way."""
        self._checkpointer.close()


def _reason(error: BaseException) -> str:
    """First line of the innermost cause, where orbax keeps what happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
