"""One file per artifact format, and the bundle that holds them."""
