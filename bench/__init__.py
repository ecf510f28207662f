"""How one run is made and how a grid of runs is run. CONTRIBUTING.md has a map of the folders."""
