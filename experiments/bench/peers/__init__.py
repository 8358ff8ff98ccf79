"""Other libraries that are timed beside ours, one file each."""
