"""Define the exceptions that a user reads: one sentence each, printed without a traceback."""


class UserError(ValueError):
    """Carry one sentence for the user; a command line prints it and exits with `exit_status`."""

    exit_status = 1


class InputError(UserError):
    """Something the user gave cannot be used: one sentence naming what, where and what to do."""

    exit_status = 2
