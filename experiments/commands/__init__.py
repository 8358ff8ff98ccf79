"""One file a verb of `worldaction`: ``HELP``, and ``add_arguments`` with ``run``, or ``forward`` that parses itself.

The file's name is the verb. These files are all imported for `worldaction --help`, so they import what they need late.
"""
