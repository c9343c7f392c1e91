"""`stage2 runner`: the native program that runs a `.pte` on a device without Python."""

from __future__ import annotations

from typing import Annotated

import typer

from litehrnet_stage2.apps import console

runner = typer.Typer(
    name="runner",
    help="The native runner: runs `.pte` files on a device that has no Python and no torch.",
    no_args_is_help=True,
)


@runner.callback()
def group() -> None:
    """Make `build` a command of the group, though it is alone."""


@runner.command()
def build(
    arch: Annotated[str, typer.Option(help="x86_64 or aarch64; Debian's cross compiler is used where needed.")] = "",
    verbose: console.Verbose = False,
) -> None:
    """Build the runner and print the folder that holds it with every library it loads: copy that to a device.

    ExecuTorch's libraries come from its wheel for that architecture, pinned by hash; nothing of it is compiled.

    Example:

        stage2 runner build --arch aarch64
    """
    with console.working(verbose=verbose) as progress:
        from litehrnet_stage2.runtime.devices import build_runner
        from litehrnet_stage2.runtime.devices.toolchain import host_arch

        made = build_runner(arch or host_arch(), progress=progress)
    console.out.print(str(made.folder), highlight=False, soft_wrap=True)
