"""The private names of other libraries that converting uses, a module for each library: nowhere else are there any.

An underscore is no promise: a new version may rename it. `tests/test_upstream.py` says which name is gone.
"""
