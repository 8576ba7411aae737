"""What this machine's network lets a peer do, found out without one."""
