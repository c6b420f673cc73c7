"""Multi-AD beside published methods on the same slices, and its own ablation."""
