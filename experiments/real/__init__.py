"""Episodes of learned policies, recorded to be learned from."""
