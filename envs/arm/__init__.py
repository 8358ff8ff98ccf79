"""A small arm with two cameras on a table of three blocks: a robot whose recordings look like those of a real one."""
