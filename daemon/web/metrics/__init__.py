"""Numbers for Prometheus: which there are, and how they are written."""
