"""onnxruntime-web, as it ships inside this package: the CPU build, unchanged, its version pinned and hash checked.

To take another version: unpack `npm pack onnxruntime-web@VERSION`, copy the two files from `dist/` (the WebAssembly
compressed with `gzip -9 -n`), LICENSE and ThirdPartyNotices.txt from the wheel of onnxruntime, and state the hashes.
"""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources

from litehrnet_stage2.reference.errors import Stage2Error

VERSION = "1.30.0"

FOLDER = "onnxruntime_web"

MODULE = "ort.wasm.bundle.min.mjs"

WASM = "ort-wasm-simd-threaded.wasm"

SHA256 = {
    MODULE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""Of the files as the npm package has them."""


class VendorError(Stage2Error):
    """A vendored file is not what was vendored; the message says what to do."""


def module() -> bytes:
    """The JavaScript module.

    Raises:
        VendorError: the installed file was changed.
    """
    return _checked(MODULE, _read(MODULE))


def compressed_wasm() -> bytes:
    """The WebAssembly, as gzip: what goes out with `Content-Encoding: gzip`.

    Raises:
        VendorError: the installed file was changed.
    """
    compressed = _read(f"{WASM}.gz")
    try:
        _checked(WASM, gzip.decompress(compressed))
    except (OSError, EOFError) as error:
        raise VendorError(f"{WASM}.gz is damaged ({error}): install the package again") from error
    return compressed


def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath(FOLDER, name).read_bytes()


def _checked(name: str, content: bytes) -> bytes:
    if (found := hashlib.sha256(content).hexdigest()) != SHA256[name]:
        raise VendorError(
            f"{name} of onnxruntime-web has SHA-256 {found[:12]}..., where {SHA256[name][:12]}... ships: "
            "install the package again"
        )
    return content
