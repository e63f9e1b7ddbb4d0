"""The search for a good basin and the exact end of it, which all methods share."""
