"""What a tensor is: dtypes, sizes, the Tensor class, modes and error messages. Knows nothing of operators."""
