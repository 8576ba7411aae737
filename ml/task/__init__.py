"""A user's model and data, loaded and checked.

Needs nothing of `ml`. Not in it: training on it (`local`).
"""
