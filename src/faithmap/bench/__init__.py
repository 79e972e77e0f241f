"""Benchmarks over whole data sets: a plan of work units, engines that run it, a store of rows, and a report."""
