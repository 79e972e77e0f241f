"""Class activation maps: any weighting with any gradient."""
