"""`fit` and its compiled step; a run by a recipe, its folder, checkpoints and report."""
