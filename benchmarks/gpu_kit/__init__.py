"""The sections of the GPU kit, see ``benchmarks/gpu.py``."""
