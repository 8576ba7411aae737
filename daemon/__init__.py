"""The peer: composes protocol, rendezvous, relay and ml; lifecycle, rounds, paths, control, CLI."""
