"""Settings, scales and grids: read, converted, checked. Nothing here imports torch."""
