"""What acts: policy heads, their cloning from demonstrations, and updates that improve them in imagination."""
