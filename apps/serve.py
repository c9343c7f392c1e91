"""`stage2 serve`: a page that checks, times and shows the network in any browser, a phone's above all."""

from __future__ import annotations

import ipaddress
import secrets
import ssl
import threading
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from litehrnet_stage2.apps import address, console
from litehrnet_stage2.apps.room import Room
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import read_regular
from litehrnet_stage2.reference.progress import Progress

if TYPE_CHECKING:
    from litehrnet_stage2.runtime import Bundle
    from litehrnet_stage2.runtime.web import Model, WebServer

PAGE = (
    "index.html",
    "style.css",
    "icon.svg",
    "main.js",
    "landmarks.js",
    "decode.js",
    "server.js",
    "runner.js",
    "worker.js",
    "memory.js",
    "border.js",
    "timing.js",
)

_GRACE_S = 0.5
"""After the only result of `--once`: the page reads its answer."""

_LOOK_UP_S = 0.2


def serve(
    bundle: Annotated[Path, typer.Argument(help="A folder that `stage2 convert` made.", metavar="DIR")],
    bind: Annotated[
        str,
        typer.Option(
            help="Address to listen on; 0.0.0.0 opens the page to the network, for phones.", metavar="ADDRESS"
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 0,
    tls: Annotated[
        Path | None,
        typer.Option(
            help="Key and certificate in one PEM file: serves https, which a live camera needs.", metavar="PEM"
        ),
    ] = None,
    against: Annotated[
        str, typer.Option(help="`fp32`: time the float network of the same weights beside; built on demand.")
    ] = "",
    json: console.JsonFile = None,
    once: Annotated[bool, typer.Option("--once", help="End with the first result.")] = False,
    collect: Annotated[
        Path | None, typer.Option(help="Write each result into this folder, a file each.", metavar="DIR")
    ] = None,
    verbose: console.Verbose = False,
) -> None:
    """Serve a page on which any browser compares its codes with the golden ones, takes times and shows a whole network.

    It proves the arithmetic of the browser, not of the phone's native kernels. Ctrl-C ends it. Exit 1 if any code
    differs. Opened with `#auto` (or `#auto=NAME`) behind its address, the page does everything by itself.

    Examples:

        stage2 serve bundle --bind 0.0.0.0

        stage2 serve bundle --bind 0.0.0.0 --collect phones     (then `stage2 report phones/*.json --html phones.html`)

        stage2 serve bundle --once --json web.json
    """
    with console.working(verbose=verbose) as progress:
        addresses = address.reachable(bind)
        server, room = prepare(
            bundle, (bind, port), tls=tls, against=against, json=json, collect=collect, progress=progress
        )
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    urls = [address.url(server.scheme, one, server.port, server.token) for one in addresses]
    _announce(urls, exposed=not ipaddress.ip_address(bind).is_loopback, secure=tls is not None)
    try:
        _wait(room, once=once)
    except KeyboardInterrupt:
        if not room.runs:
            raise
        console.err.print("stopped")
    server.socket.close()
    room.finish()
    if str(json) != "-":
        room.show()
    raise typer.Exit(0 if room.passed else 1)


def prepare(
    folder: Path,
    bind: tuple[str, int],
    *,
    tls: Path | None,
    against: str,
    json: Path | None,
    collect: Path | None,
    progress: Progress,
) -> tuple[WebServer, Room]:
    """Read everything that is served, and listen.

    Raises:
        InputError: a choice that there is not.
        BundleError: the bundle is damaged, or has no `.onnx`.
        OSError: the address is taken, or is none of this machine's.
    """
    from litehrnet_stage2.runtime import Bundle
    from litehrnet_stage2.runtime.web import GoldenCodes, PagePlan, Visits, WebServer, site_files

    opened = Bundle.open(folder)
    codes = GoldenCodes.of(opened)
    models, weights = bundle_models(opened), "the bundle's"
    if against:
        from litehrnet_stage2.apps.baselines.build import WEIGHTS

        models |= baseline_models(opened, against, progress)
        weights = WEIGHTS
    if collect is not None:
        collect.mkdir(parents=True, exist_ok=True)
    room = Room(codes, models, golden_sha256=opened.manifest.golden_sha256, weights=weights, json=json, folder=collect)
    server = WebServer(
        bind,
        token=secrets.token_urlsafe(16),
        files=site_files(page_files(), opened.folder.absolute().name, codes, models, PagePlan()),
        route=Visits(codes, models, room.take).route,
        tls=None if tls is None else certificate(tls),
    )
    return server, room


def page_files() -> dict[str, bytes]:
    """The page, by file name."""
    return {name: resources.files(__package__).joinpath("page", name).read_bytes() for name in PAGE}


def bundle_models(bundle: Bundle) -> dict[str, Model]:
    """The bundle's artifacts for ONNX Runtime, which onnxruntime-web runs as they are: `web`, `web-codes`.

    Raises:
        BundleError: there is none, or one was changed.
    """
    from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
    from litehrnet_stage2.runtime.web import Model

    rows = [row for row in ARTIFACTS.values() if row.library == "onnxruntime" and row.exact]
    models = {}
    for row in [row for row in rows if row.name in bundle.manifest.artifacts] or rows[:1]:
        file = bundle.artifact(row.name)
        border = bundle.manifest.artifacts[row.name].border
        name = f"web{row.name.removeprefix('onnx')}"
        models[name] = Model(
            name=name,
            file_name=file,
            content=bundle.read(file),
            sha256=bundle.sha256(file),
            exact=True,
            description=f"the integer function, {border}",
            layout=border.layout,
        )
    return models


def baseline_models(bundle: Bundle, against: str, progress: Progress) -> dict[str, Model]:
    """The float network as `.onnx`, built if it is not in the cache.

    Raises:
        InputError: something else than `fp32` was asked for.
        BaselineUnavailableError: a package that builds it is missing.
    """
    from litehrnet_stage2.apps.baselines.build import baseline_candidates
    from litehrnet_stage2.runtime.web import Model

    if against != "fp32":
        raise InputError(f"--against {against!r} cannot be run in a browser here: `fp32` can")
    baselines = baseline_candidates(bundle, ["fp32"], threads=[1], progress=progress)
    baseline = next(baseline for baseline in baselines if baseline.library == "onnxruntime")
    return {
        "web-fp32": Model(
            name="web-fp32",
            file_name=Path(baseline.path).name,
            content=Path(baseline.path).read_bytes(),
            sha256=baseline.sha256,
            exact=False,
            description=baseline.description,
        )
    }


def certificate(pem: Path) -> ssl.SSLContext:
    """TLS with the key and certificate of a file.

    Raises:
        InputError: the file is no regular one of at most 1 MiB, or holds no key and certificate that belong together.
        OSError: it cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    read_regular(pem, most_bytes=2**20)  # so that a file that cannot be read is named
    try:
        context.load_cert_chain(pem)
    except ssl.SSLError as error:
        raise InputError(
            f"--tls {pem} holds no key and certificate that belong together ({error.reason}): put both in one PEM file"
        ) from error
    return context


def _announce(urls: list[str], *, exposed: bool, secure: bool) -> None:
    """Say where the page is, and where others can reach it, what that exposes."""
    say = console.err.print
    say("Open in a browser:", *urls, sep="\n  ", markup=False, highlight=False, soft_wrap=True)
    if exposed:
        say(address.qr(urls[0]), style="black on white", markup=False, highlight=False)
        say(
            "Open to this network: whoever has the address can read the model and the golden inputs and send results. "
            + ("" if secure else "Plain http: others on the network can listen. ")
            + "Ctrl-C ends it.",
            highlight=False,
        )


def _wait(room: Room, *, once: bool) -> None:
    """Until the first result, or for ever; the table lives in a terminal, elsewhere it is printed at the end."""
    if once:
        _until_one_came(room)
        threading.Event().wait(_GRACE_S)
        return
    with Live(room.table(), console=console.out, auto_refresh=False, transient=True) as live:
        while room.failure is None:
            _until_one_came(room)
            room.came.clear()
            live.update(room.table(), refresh=console.out.is_terminal)


def _until_one_came(room: Room) -> None:
    """Look up now and then: a signal that arrives just before the thread sleeps would wait for the next result."""
    while not room.came.wait(timeout=_LOOK_UP_S):
        pass
