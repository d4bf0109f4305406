"""Contestants of the benchmarks of speed, each in a process of its own, and who asks them."""
