"""Checkpoints: files, run state, initial weights, finished models."""
