"""What helps to write a policy head: its contract as checks, and a first file."""
