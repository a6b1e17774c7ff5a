"""Exceptions that end a command, each with the exit status that `main.py` returns.

`main.py` prints the message in one line, without a traceback.
"""


class UserError(Exception):
    """Invalid flag, config, file or dataset; not retryable."""

    status = 2


class RunError(Exception):
    """Fault of the machine, such as a failed device or a full disk; the same command resumes the run."""

    status = 1


class StoppedError(Exception):
    """A signal stopped the run after a checkpoint was saved; the same command resumes the run.

    Args:
        message: line that `main.py` prints.
        signal: number of the signal; the exit status is 128 more.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.status = 128 + signal
