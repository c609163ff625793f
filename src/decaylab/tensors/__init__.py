"""Arithmetic on lists of tensors: foreach passes, sharding, reductions."""
