"""The one exception a user is meant to read."""


class InputError(ValueError):
    """Something the user gave cannot be used: one sentence naming what, where and what to do.

    Command lines print it without a traceback and exit with status 2.
    """
