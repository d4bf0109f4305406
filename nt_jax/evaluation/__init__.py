"""Questions to a checkpoint: embeddings, probes and their controls."""
