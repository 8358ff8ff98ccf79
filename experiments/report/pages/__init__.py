"""What is read: the page of a run, that of a loss, what pages have in common, and the same as Markdown."""
