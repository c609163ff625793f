"""Training: one loop for vision and language, with its checkpoints and preflight checks."""
