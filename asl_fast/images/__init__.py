"""One image file to pixels."""
