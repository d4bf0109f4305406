"""Scaling studies: grids of runs, what they cost, their losses, and the laws fitted to them."""
