"""What nodes saved, under the names that PyTorch shows."""
