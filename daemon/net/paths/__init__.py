"""Paths to other peers: what each kind has in common, and the kinds."""
