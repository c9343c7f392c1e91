"""How this package starts another Python, so that no file of the current folder is taken for a module.

A bundle comes from elsewhere, and people stand in its folder: `python -m` would search a `numpy.py` there first.
"""

from __future__ import annotations

import os
import sys

PYTHON = (sys.executable, "-P")
"""The words that start this interpreter; `-P` leaves the current folder out of the modules' path."""


def keep_children_safe() -> None:
    """Have every Python that is started from here on, by libraries too, leave the current folder out."""
    os.environ["PYTHONSAFEPATH"] = "1"
