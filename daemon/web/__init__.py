"""What a running peer shows over HTTP: the page and its data, and metrics for monitoring.

Needs `control` and `host`. Not in it: the local socket and its documents (`control`), commands
(`cli`).
"""
