"""The path of last resort: a relay that forwards sealed frames."""
