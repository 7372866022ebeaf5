"""Stand-in for the pytorch backend, not written yet."""
