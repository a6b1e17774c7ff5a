"""Settings: read once from a config, checked, and frozen."""
