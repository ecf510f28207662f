"""The machine, its files and what is said of them."""
