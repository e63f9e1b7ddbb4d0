"""Exact Newton methods on the controls."""
