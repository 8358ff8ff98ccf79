"""What is said of studies that learned from recorded data alone, without a simulator or a robot."""
