"""Open an artifact, check its output, time it. Works with no torch installed."""
