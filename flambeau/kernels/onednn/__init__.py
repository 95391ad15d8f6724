"""oneDNN by ctypes: one file for loading it, one for primitives and their cache, one a family of primitives."""
