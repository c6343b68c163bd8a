"""The command line: one file per command, with ``add_arguments(parser)`` and ``execute(args)``."""
