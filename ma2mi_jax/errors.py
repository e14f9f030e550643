"""The one error that is meant for people."""


class UserError(Exception):
    """Something the user can mend: a flag, a path, a file.

    The message is one line: what was looked at, what was expected, what was found, and how to mend it.
    The scripts in `experiments/` print it to stderr and exit with code 2.
    """
