"""The prior step of the recurrent model, and its loop over the imagined horizon."""
