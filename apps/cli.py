"""The command `stage2`. Commands live one to a file; what is heavy they import when they run."""

from __future__ import annotations

import typer

from litehrnet_stage2.apps.bench import bench
from litehrnet_stage2.apps.convert import convert
from litehrnet_stage2.apps.demo import demo
from litehrnet_stage2.apps.doctor import doctor
from litehrnet_stage2.apps.inspect import inspect
from litehrnet_stage2.apps.parity import parity
from litehrnet_stage2.apps.qat.cli import register as register_qat
from litehrnet_stage2.apps.report import report
from litehrnet_stage2.apps.runner import runner
from litehrnet_stage2.apps.serve import serve
from litehrnet_stage2.runtime.child import keep_children_safe

app = typer.Typer(
    name="stage2",
    help="Stage2 of a Lite-HRNet-18 variant on a phone: one int8 function, the same bits out of every runtime.",
    epilog="Start with `stage2 demo`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (demo, convert, parity, inspect, bench, serve, report, doctor):
    app.command()(command)
app.add_typer(runner)
register_qat(app)


def main() -> None:
    """Entry point of the console script."""
    keep_children_safe()
    app()
