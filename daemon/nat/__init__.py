"""What the network between this peer and the others does: STUN, NAT behaviour, port mapping."""
