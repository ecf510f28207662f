"""Many runs: what they cost, where they run, and their status."""
