"""What every part of p2pd speaks: identity, signed envelopes, messages. No I/O, no torch."""
