"""The private names of other libraries that running uses: nowhere else are there any; see `converters.upstream`."""
