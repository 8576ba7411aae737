"""Paths to other peers: what all kinds have in common, and the kinds."""
