"""Files that are whole or not there, the record of metrics, fingerprints, pictures."""
