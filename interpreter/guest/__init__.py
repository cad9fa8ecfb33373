"""Programs that run inside a box, with the standard library alone."""
