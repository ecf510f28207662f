"""What is asked for: settings, grids and their checks. Nothing here imports torch."""
