"""What `worldaction benchmark` measures: libraries side by side, after what is not right has been refused."""
