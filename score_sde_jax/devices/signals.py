"""Signals that stop a process; imports no JAX, so that the command line watches them from the start."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

from score_sde_jax.errors import StoppedError


def tell(line: str) -> None:
    """Print a line on standard error, if it is there."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class Stop:
    """State of SIGTERM, SIGINT and SIGHUP: the first signal asks the run to save and exit, the second exits at once.

    A separate thread reads the signals, since Python's handlers wait while the main thread compiles or waits for a
    device.

    Args:
        saving: what the process does after the first signal, for the message.

    Attributes:
        received: first signal; None before it.
        patient: whether there is something to save; if not, the first signal exits at once.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, saving: str = "saving a checkpoint") -> None:
        self.saving = saving
        self.received: int | None = None
        self.patient = False

    def watch(self, reader: socket.socket) -> None:
        """Handle the signals from a socket until it is closed.

        Args:
            reader: socket of `signal.set_wakeup_fd`, one byte per signal.
        """
        while data := reader.recv(16):
            for number in data:
                if number in self.SIGNALS:
                    self._handle(number)

    def _handle(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self.patient or self.received is not None:
            tell(f"{name}: exiting now; the same command resumes from what is saved")
            os._exit(128 + number)
        self.received = number
        tell(f"{name}: {self.saving}; send again to exit now")

    def error(self, saved: str) -> StoppedError:
        """Return the error that ends the run after it has saved its state.

        Args:
            saved: last step or sample that is saved.
        """
        number = self.received or signal.SIGTERM  # if another process was stopped, the vote has no signal number
        name = signal.Signals(number).name
        return StoppedError(
            f"stopped by {name} after {saved}, which is saved; the same command resumes from it", number
        )


@contextlib.contextmanager
def stopping(saving: str = "saving a checkpoint") -> Iterator[Stop]:
    """Watch for signals, and restore their handlers at the end; outside the main thread, watch nothing.

    Args:
        saving: what the process does after the first signal, for the message.
    """
    stop = Stop(saving)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watched = [number for number in Stop.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # not below nohup
    handlers = {number: signal.signal(number, lambda *_: None) for number in watched}
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=stop.watch, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()
        watcher.join()
        reader.close()
