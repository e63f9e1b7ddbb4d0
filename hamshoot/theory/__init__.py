"""Every formula once, in plain NumPy: the reference that all else is held to."""
