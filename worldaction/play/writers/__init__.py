"""One file a format that is written."""
