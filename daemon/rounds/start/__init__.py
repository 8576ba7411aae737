"""How a swarm's first round begins, and the first one after all of it was away.

Where rounds are agreed on, peers first agree on who is in (``gathering.py``). In gossip each
decides by itself (``beginning.py``). Needs nothing of the other rooms of rounds but `agreement`.
"""
