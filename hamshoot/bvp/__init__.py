"""Multiple shooting for any two-point boundary value problem; knows no network."""
