"""Where runs are made when one machine is not enough: SLURM, and a real SLURM for the tests."""
