"""Commands for when something is wrong: what it may be on this machine, and what to send."""
