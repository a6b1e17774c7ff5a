"""What noise does to data, and what a network says about it: SDEs, losses, likelihood, guidance."""
