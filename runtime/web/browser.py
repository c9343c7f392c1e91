"""Which browser a `User-Agent` names, as well as it can be known."""

from __future__ import annotations

import re

_BROWSERS = (
    ("Edge", r"Edg(?:A|iOS)?/(\d+)"),
    ("Opera", r"OPR/(\d+)"),
    ("Samsung Internet", r"SamsungBrowser/(\d+)"),
    ("Firefox", r"(?:Firefox|FxiOS)/(\d+)"),
    ("Chrome", r"(?:Chrome|CriOS)/(\d+)"),
    ("Safari", r"Version/(\d+)[.\d]* .*Safari/"),
)
"""The first that is found: most browsers also name the ones they descend from."""

_SYSTEMS = (
    ("Android", r"Android ?(\d+)?"),
    ("iOS", r"(?:iPhone|iPad).*? OS (\d+)"),
    ("macOS", r"Macintosh()"),
    ("Windows", r"Windows()"),
    ("Linux", r"Linux()"),
)


def browser(user_agent: str) -> str:
    """For example `Chrome 130 on Android 14`."""
    name = _first(_BROWSERS, user_agent) or "an unknown browser"
    system = _first(_SYSTEMS, user_agent)
    return f"{name} on {system}" if system else name


def _first(known: tuple[tuple[str, str], ...], user_agent: str) -> str:
    for name, pattern in known:
        if found := re.search(pattern, user_agent):
            return f"{name} {found[1] or ''}".strip()
    return ""
