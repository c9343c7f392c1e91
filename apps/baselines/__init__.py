"""Baselines are what the tools of each library make of the same weights; they are timed beside the bundle."""
