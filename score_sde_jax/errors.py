"""Exceptions that end a command, each with the exit status that `main.py` returns.

`main.py` prints the message in one line, without a traceback.
"""

import errno
import os


class UserError(Exception):
    """Invalid flag, config, file or dataset; not retryable."""

    status = 2


class RunError(Exception):
    """Fault of the machine, such as a failed device or a full disk; the same command resumes the run."""

    status = 1


FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE}
"""Error numbers of faults of the machine; a user can mend the cause of all others."""


def file_error(error: OSError, name: object) -> UserError | RunError:
    """Return the error of a file as one line with its name.

    Args:
        error: error of the operating system.
        name: flag with its value, or path.
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    return (RunError if error.errno in FAULTS else UserError)(f"{name}: {reason}")


class StoppedError(Exception):
    """A signal stopped the run after a checkpoint was saved; the same command resumes the run.

    Args:
        message: line that `main.py` prints.
        signal: number of the signal; the exit status is 128 more.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.status = 128 + signal
