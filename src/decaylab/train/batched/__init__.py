"""Small runs of one architecture, trained side by side in one process."""
