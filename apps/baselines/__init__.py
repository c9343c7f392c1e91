"""Baselines: what the tools of each library make of the same weights, to be timed beside the bundle."""
