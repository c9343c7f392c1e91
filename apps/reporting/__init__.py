"""Benchmark results as a page or as Markdown."""
