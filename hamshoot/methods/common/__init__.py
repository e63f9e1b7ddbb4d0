"""What methods share: clock, best iterate, starts."""
