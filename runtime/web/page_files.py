"""The table of files: the page, onnxruntime-web, the job, the models and the golden inputs."""

from __future__ import annotations

from collections.abc import Mapping

from litehrnet_stage2.runtime.web import vendor
from litehrnet_stage2.runtime.web.golden_codes import GoldenCodes
from litehrnet_stage2.runtime.web.protocol import Model, PagePlan, job
from litehrnet_stage2.runtime.web.server import File

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
BINARY = "application/octet-stream"


def site_files(
    page: Mapping[str, bytes], title: str, codes: GoldenCodes, models: Mapping[str, Model], plan: PagePlan
) -> dict[str, File]:
    """Everything that can be asked for, by path.

    Args:
        page: the page's own files, by name; `index.html` is also the empty path.

    Raises:
        VendorError: onnxruntime-web, as installed, is not what ships.
    """
    files = {name: File(content, MEDIA_TYPES[name[name.rindex(".") :]]) for name, content in page.items()}
    files[""] = files.pop("index.html")
    files["ort.mjs"] = File(vendor.module(), MEDIA_TYPES[".js"])
    files["ort.wasm"] = File(vendor.compressed_wasm(), "application/wasm", "gzip")
    files["job.json"] = File(job(title, codes, models, plan), "application/json")
    files |= {f"model/{name}": File(model.content, BINARY) for name, model in models.items()}
    files |= {f"input/{index}": File(codes.question(index), BINARY) for index in range(codes.images)}
    return files
