"""How long a round of averaging takes: p2pd, gloo's all-reduce and hivemind, in turns in one run.

Each system has a module that measures it. Those of gloo and hivemind run in processes of their own,
hivemind's in an environment of its own, and import nothing of p2pd.
"""
