"""The errors that are the user's to mend: every one of this package derives from `Stage2Error`."""

from __future__ import annotations

LONGEST_MESSAGE = 2000
_LONGEST_END = 600


class Stage2Error(Exception):
    """What was asked for cannot be done; the message is a sentence that says what to do.

    Whoever catches this one catches every mistake of a caller's, and no fault of the program. What a message quotes of
    a file may be anything: it is shown as `quotable` has it.
    """

    def __str__(self) -> str:
        return quotable(super().__str__())


class InputError(Stage2Error, ValueError):
    """A value that was given is not accepted."""


def printable(said: str) -> str:
    """Text that does nothing to a terminal: tabs and line ends stay, other controls become escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in said)


def quotable(said: str) -> str:
    """`printable` text of at most `LONGEST_MESSAGE` characters: of a longer one the beginning and the end."""
    shown = printable(said)
    if len(shown) <= LONGEST_MESSAGE:
        return shown
    gap = " [...] "
    return shown[: LONGEST_MESSAGE - _LONGEST_END - len(gap)] + gap + shown[-_LONGEST_END:]
