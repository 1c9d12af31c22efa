"""`CommandError`: ends a command with a one-line message."""


class CommandError(Exception):
    """Ends the command; the text is printed to standard error."""
