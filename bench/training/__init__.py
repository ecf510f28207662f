"""What distilling and evaluating share: random numbers, batches, and a run's device and data."""
