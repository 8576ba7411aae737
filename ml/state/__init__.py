"""The model as tensors and files: manifest, state, checkpoint, export.

Needs nothing of `ml`. Not in it: training.
"""
