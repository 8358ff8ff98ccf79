"""The world model: networks, recurrent cores, the model, its training."""
