"""Planning a run: memory, collectives, time and cost on hardware that is not there."""
