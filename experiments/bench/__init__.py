"""What `worldaction benchmark` measures: contestants, the clock, the gate that they must pass, tables."""
