"""The one exception that means "the user can fix this"."""


class UserError(Exception):
    """A mistake in a flag, a config, a file or a data set, told in one line.

    `main.py` prints the message alone, without a traceback, and exits with status 2.
    """
