"""Checks of arguments, whole files, the version: what knows nothing of networks."""
