"""How one run is made and how a grid of runs is run. See the README for the map of the rooms."""
