"""The training room: settings, one loop for vision and language, checkpoints. ``config`` does not import torch."""
