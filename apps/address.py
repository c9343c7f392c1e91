"""Addresses under which other machines reach this one, and how to put one on a phone."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from litehrnet_stage2.reference.errors import InputError

# Of the block that is set aside for documentation: choosing a route to it sends nothing.
_SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def reachable(bind: str) -> list[str]:
    """The addresses that a server bound to `bind` has: itself, or where that means all of them, those of this machine.

    Raises:
        InputError: it is no address.
    """
    try:
        address = ipaddress.ip_address(bind)
    except ValueError as error:
        raise InputError(f"--bind {bind!r} is no address: give 127.0.0.1, 0.0.0.0 or one of this machine's") from error
    if not address.is_unspecified:
        return [str(address)]
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    found = []
    # Without a network this machine alone can reach it.
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect((_SOMEWHERE[family], 9))
        found.append(str(probe.getsockname()[0]))
    return [*found, "::1" if address.version == 6 else "127.0.0.1"]


def url(scheme: str, address: str, port: int, token: str) -> str:
    """The address of the page."""
    host = f"[{address}]" if ":" in address else address
    return f"{scheme}://{host}:{port}/{token}/"


def qr(text: str) -> str:
    """A QR code for a terminal, two modules high a line, dark on light whatever the terminal's colours.

    Shape: the code and two modules of quiet zone around it.
    """
    import segno

    matrix = [[bool(module) for module in row] for row in segno.make(text, error="l").matrix_iter(border=2)]
    if len(matrix) % 2:
        matrix.append([False] * len(matrix[0]))
    blocks = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    pairs = zip(matrix[::2], matrix[1::2], strict=True)
    return "\n".join("".join(blocks[pair] for pair in zip(*rows, strict=True)) for rows in pairs)
