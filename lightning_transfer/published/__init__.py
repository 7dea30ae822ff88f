"""Values of released code, for comparison: the package computes its own answers elsewhere."""
