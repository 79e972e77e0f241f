"""Benchmarks over whole data sets: specification, plan of work units, engines that run it, store of results, report."""
