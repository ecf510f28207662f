"""Anatomies of meta-gradients: what flows through every window of a trajectory. Reading them needs
no torch."""
