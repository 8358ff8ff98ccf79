"""Meta-World's tasks, the second benchmark."""
