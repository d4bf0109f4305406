"""Elements of an annotated genome: attention, masked accuracy and embeddings by element class."""
