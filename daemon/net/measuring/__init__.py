"""Measuring what is between two peers, over their session: round trips, and bytes delivered."""
