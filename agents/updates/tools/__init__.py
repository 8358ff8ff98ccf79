"""What helps to write a policy update: its contract as checks, and a first file."""
