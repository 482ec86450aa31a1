"""`qvl check`: whether a checkpoint is answered here as its authors' code answers it."""
