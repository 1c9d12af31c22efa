"""What goes wrong and is said to the person at the terminal in one line."""


class Trouble(Exception):
    """Ends the command; the text is for people."""
