"""One run: its folder, its heartbeat, its result."""
