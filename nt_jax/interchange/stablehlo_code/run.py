"""Runs the exported model. Needs jax, flatbuffers, numpy and safetensors, and nothing of nt-jax."""

import pathlib

import jax
import jax.export
import numpy as np
from safetensors.numpy import load_file

folder = pathlib.Path(__file__).parent
program = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
forward = jax.jit(program.call)
weights = jax.device_put(load_file(folder / "weights.safetensors"))
ids = {token: i for i, token in enumerate((folder / "vocab.txt").read_text().split())}

sequence = "ATTCTGATTCTGTTGCAA"  # whole k-mers; left-over bases and N would be single letters
k = len(next(token for token in ids if not token.startswith("<")))
kmers = [sequence[i : i + k] for i in range(0, len(sequence), k)]
tokens = np.array([[ids["<cls>"], *(ids[kmer] for kmer in kmers)]], np.int32)  # [batch, tokens]

outputs = forward(weights, tokens)
print("logits [batch, tokens, vocabulary]:", outputs["logits"].shape)
print("embeddings [layers, batch, tokens, width]:", outputs["embeddings"].shape)
