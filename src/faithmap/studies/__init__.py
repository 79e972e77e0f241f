"""Studies: the analyses that the command line and the page run. Each is one file: computation, record, and written files.

The command line and the page both run them. ``settings`` and ``outcome`` are free of torch, so that ``faithmap --help`` starts
at once; the other modules are imported when a study runs.
"""
