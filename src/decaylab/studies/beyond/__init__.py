"""Studies of our own, beyond the paper: what weight decay does, put to controls that the paper does not have."""
