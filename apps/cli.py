"""The command `stage2`. Commands live one to a file; what is heavy they import when they run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from litehrnet_stage2.apps import console
from litehrnet_stage2.apps.bench import bench
from litehrnet_stage2.apps.check_bundle import parity
from litehrnet_stage2.apps.convert import convert
from litehrnet_stage2.apps.demo import demo
from litehrnet_stage2.apps.doctor import doctor
from litehrnet_stage2.apps.inspect_bundle import inspect
from litehrnet_stage2.apps.qat.command import register as register_qat
from litehrnet_stage2.apps.report import report
from litehrnet_stage2.apps.runner import runner
from litehrnet_stage2.apps.serve import serve
from litehrnet_stage2.runtime.child import keep_children_safe

app = typer.Typer(
    name="stage2",
    help="Stage2 of a Lite-HRNet-18 variant on a phone: one int8 function, the same bits out of every runtime.",
    epilog="Start with `stage2 demo`. Exit status: 0 done, 1 a comparison failed, 2 something for you to mend, "
    "3 a fault of this program, 128 and its number after a signal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
for command in (demo, convert, parity, inspect, bench, serve, report, doctor):
    app.command()(command)
app.add_typer(runner)
register_qat(app)


def _version(asked: bool) -> None:
    if asked:
        from litehrnet_stage2.reference.version import __version__

        typer.echo(f"stage2 {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = (
        False
    ),
) -> None:
    """Hold what goes before a command; the help is the application's."""


def main() -> None:
    """Entry point of the console script."""
    keep_children_safe()
    sys.exit(console.run(app))
