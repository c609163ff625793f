"""The engine of experiments: declarations, results, checks, evidence, statistics."""
