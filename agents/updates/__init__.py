"""One file a way to improve a policy in imagination."""
