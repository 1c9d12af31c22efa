"""Messages one below the other, separated by days."""

from __future__ import annotations

from datetime import date

from chatd.cli.printing import format_message
from chatd.cli.style import Style
from chatd.client import Message


class Transcript:
    """Formats the messages shown on a terminal, in the order in which they are."""

    def __init__(self, style: Style, own_id: int) -> None:
        self._style = style
        self._own_id = own_id
        self._day: date | None = None

    def format(self, message: Message, name: str) -> str:
        """A message, below a line with the local date if the message above is not of that day."""
        own = message.sent_by == self._own_id
        text = format_message(message, name, self._style, own=own)
        day = self.new_day(message)
        return text if day is None else f"{day}\n{text}"

    def new_day(self, message: Message) -> str | None:
        """The line above a message if the message before is not of the same local date."""
        day = message.sent_at.astimezone().date()
        if day == self._day:
            return None
        self._day = day
        return self._style.time(f"— {day:%A}, {day.day} {day:%B %Y} —")
