"""How far a network is from a minimum, by formulas of its own, and nothing clever."""
