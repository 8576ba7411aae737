"""What travels: the pseudo-gradient, its encodings, the update file.

Needs `state`. Not in it: torch, and what is done with updates (`aggregate`).
"""
