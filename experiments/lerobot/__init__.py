"""A saved policy as a folder that the `lerobot` package loads, with the plug-in that it loads it by."""
