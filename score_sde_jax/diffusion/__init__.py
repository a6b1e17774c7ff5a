"""Diffusion as pure functions: SDEs, preconditioning, losses, likelihood and guidance."""
