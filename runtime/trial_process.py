"""The process of `trial`: opens an artifact from its standard input, runs it once on zeros, and says why it could not.

`python -m litehrnet_stage2.runtime.trial_process REQUEST`, a `Request` as JSON. Status 0 if it ran; else its output is
the reason.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from litehrnet_stage2.reference.contract.codec import decode, parse
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.memory_limit import limit_this_process
from litehrnet_stage2.runtime.program import Names, library_version, open_program
from litehrnet_stage2.runtime.trial import Request


def main() -> int:
    """Entry point of the process."""
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)  # what libraries print must not mix with the reason
    request = decode(Request, parse(sys.argv[1]))
    content = Path(request.folder) if request.folder else sys.stdin.buffer.read()
    library_version(request.library)
    limit_this_process()
    names = Names(*(tuple(spec.name for spec in specs) for specs in (request.inputs, request.outputs)))
    try:
        program = open_program(request.library, content, threads=1, exact=request.exact, names=names)
        fed = BorderProgram(program, request.inputs, request.outputs, request.border)
        fed.run(fed.from_codes(*(np.zeros(spec.shape, np.int8) for spec in request.inputs)))
    except Exception as error:  # whatever the library raises is its reason
        print(f"{error or type(error).__name__}", file=reply, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
