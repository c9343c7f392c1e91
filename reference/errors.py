"""The errors that are the user's to mend: every one of this package derives from `Stage2Error`."""

from __future__ import annotations


class Stage2Error(Exception):
    """What was asked for cannot be done; the message is a sentence that says what to do.

    Whoever catches this one catches every mistake of a caller's, and no fault of the program.
    """


class InputError(Stage2Error, ValueError):
    """A value that was given is not accepted."""
