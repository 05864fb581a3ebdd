"""Other people's scripts: read without running them, checked, and run on this package."""
