"""From settings to objects, the training step, what lies on disk, what is told and shown, and four drivers."""
