"""One page with all of it."""
