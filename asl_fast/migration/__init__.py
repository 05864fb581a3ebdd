"""Users' Keras scripts: checked without running them, or run with this package."""
