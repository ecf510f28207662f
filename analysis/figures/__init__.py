"""The figures of the paper: their specifications, their numbers, and how they are drawn."""
