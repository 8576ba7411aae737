"""The path of last resort: a server that forwards sealed frames between peers, and its client."""
