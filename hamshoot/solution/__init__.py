"""What a solver returns."""
