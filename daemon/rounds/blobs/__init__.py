"""Model bytes on disk and between peers, chunk by chunk, each chunk checked.

Needs `speaker` and `mail`, nothing else of `rounds`. Not in it: what the bytes mean (`ml`).
"""
