"""The one exception a user is meant to read."""


class UserError(Exception):
    """Bad input: one line that names the thing and the remedy; the command line exits with code 2."""
