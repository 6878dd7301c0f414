"""The one exception for bad input: entry points print it as one line and exit with code 2."""


class InputError(ValueError):
    """What is wrong, where, and what to do about it, in one line that quotes no private value."""
