"""The one exception a user is meant to read, and how other errors become one line of it."""


class UserError(Exception):
    """Bad input: one line that names the thing and the remedy; the command line exits with code 2."""


def first_line(error: Exception) -> str:
    """The first line of a message, for errors that are one line."""
    return str(error).strip().split("\n")[0]
