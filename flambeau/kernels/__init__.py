"""Arithmetic on NumPy arrays: what every operator is computed with. Knows nothing of tensors."""
