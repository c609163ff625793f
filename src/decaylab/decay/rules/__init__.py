"""The decay rules, a file for each family."""
