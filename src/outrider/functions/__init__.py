"""One folder per network function."""
