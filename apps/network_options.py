"""The options by which a command takes a person's own whole network (imports nothing heavy)."""

from __future__ import annotations

from typing import Annotated

import typer

NetworkOption = Annotated[
    str | None,
    typer.Option(
        help="A whole network instead of a Stage2: MODULE:NAME of a function that returns the module. It is "
        "imported, so its code runs; its weights are --checkpoint, or what the function gives it."
    ),
]
InputOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="With --network, for each input of `forward`: NAME=1xCxHxW, and :pixels behind it where it takes an "
        "image in [0, 1], which artifacts then take as uint8.",
    ),
]
OutputOptions = Annotated[
    list[str] | None,
    typer.Option("--output", help="With --network, names of the outputs, if not the keys of what it returns."),
]
