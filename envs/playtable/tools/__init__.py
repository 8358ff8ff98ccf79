"""What the play table is measured with, beside CALVIN."""
