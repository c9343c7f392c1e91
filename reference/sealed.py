"""One hash over a file and over what the JSON file beside it says."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def pair_sha256(payload: bytes, facts: dict[str, Any]) -> str:
    """SHA-256 of a file's bytes and of the facts that a JSON file beside it holds, whatever their layout."""
    digest = hashlib.sha256(payload)
    digest.update(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()
