"""One file an arrow of the flow."""
