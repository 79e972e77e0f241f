"""Studies: what a person asks of a model and images. One file each, with its computation, its record and the files it writes.

The command line and the page both run them. ``settings`` and ``outcome`` are free of torch, so that ``faithmap --help`` starts
at once; the other modules are imported when a study runs.
"""
