"""Drivers of the four modes: construction from settings, the training step, files of a run, logs and pictures."""
