"""Programs that run inside a box. Each is one self-contained file and imports the standard library only."""
