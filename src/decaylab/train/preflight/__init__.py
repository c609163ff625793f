"""Checks of a run's settings against components, data, memory and text, before anything is trained."""
