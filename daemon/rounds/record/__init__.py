"""What is remembered of rounds for people to look at. It stays bounded.

Needs nothing of the other rooms of rounds. Not in it: what rounds themselves go by (`lineage`).
"""
