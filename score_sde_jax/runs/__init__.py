"""Drivers of the four modes: objects from settings, the training step, files of a run, logs and pictures."""
