"""How a command ends before its time: by a mistake, by a fault, or by a signal.

`main.py` prints the message alone, without a traceback, and exits with the status.
"""


class UserError(Exception):
    """A mistake in a flag, a config, a file or a data set, told in one line; starting again would not help."""

    status = 2


class RunError(Exception):
    """A fault of the machine, told in one line: a device lost, a disk full; started again, the run goes on."""

    status = 1


class StoppedError(Exception):
    """A signal stopped the run after its state was saved; started again, the run goes on."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.status = 128 + signal
