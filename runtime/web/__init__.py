"""The fifth runtime, web: onnxruntime-web in a browser that opens a page of this machine."""

from litehrnet_stage2.runtime.web.golden_codes import GoldenCodes
from litehrnet_stage2.runtime.web.page_files import site_files
from litehrnet_stage2.runtime.web.protocol import Model, PagePlan, ProtocolError, Report
from litehrnet_stage2.runtime.web.server import File, Limits, WebServer
from litehrnet_stage2.runtime.web.visits import Visit, Visits

__all__ = [
    "File",
    "GoldenCodes",
    "Limits",
    "Model",
    "PagePlan",
    "ProtocolError",
    "Report",
    "Visit",
    "Visits",
    "WebServer",
    "site_files",
]
