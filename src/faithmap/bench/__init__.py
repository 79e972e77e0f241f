"""Benchmarks over whole data sets: a plan of work units, engines that run it, the store of results, the report."""
