"""Commands that show how a peer gets on: live, as a page, as a list of rounds, or by waiting.

They read the control socket's documents, and change nothing.
"""
