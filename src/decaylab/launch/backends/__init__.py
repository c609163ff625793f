"""Backends that place workers: processes of this machine, torchrun."""
