"""Methods beside decay: powerpropagation, HyperSparse, tau-normalisation."""
