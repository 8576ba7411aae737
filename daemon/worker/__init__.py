"""The training process as the daemon holds it: started, asked, restarted.

Needs `host`, and `ml` for the messages alone. Not in it: torch.
"""
