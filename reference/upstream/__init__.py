"""The private names of torch that the reference uses: nowhere else are there any; see `converters.upstream`."""
