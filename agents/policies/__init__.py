"""One file a policy head."""
