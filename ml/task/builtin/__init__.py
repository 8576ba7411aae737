"""The tasks that p2pd brings: digits and mnist.

Each is a task file like a user's own. Nothing imports them but by name.
"""
