"""What a solver is, and what it returns."""
