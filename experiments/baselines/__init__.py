"""Other ways to learn the same tasks, compared with a finished run on its own terms. One baseline is one file here."""
