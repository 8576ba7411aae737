"""What a running peer tells and takes: its status document, what is wrong, the local socket.

Needs `rounds`, `swarm`, `worker`, `net` and `host`. Not in it: commands (`cli`) and decisions of
training (`rounds`).
"""
