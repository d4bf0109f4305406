"""Runs the exported model. Needs onnxruntime and numpy, and nothing of nt-jax."""

import pathlib

import numpy as np
import onnxruntime

folder = pathlib.Path(__file__).parent
# On NVIDIA GPUs: ("CUDAExecutionProvider", {"use_tf32": 0}), for TensorFloat-32 keeps 3 digits.
providers = ["CPUExecutionProvider"]
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=providers)
ids = {token: i for i, token in enumerate((folder / "vocab.txt").read_text().split())}

sequence = "ATTCTGATTCTGTTGCAA"  # whole k-mers; left-over bases and N would be single letters
k = len(next(token for token in ids if not token.startswith("<")))
kmers = [sequence[i : i + k] for i in range(0, len(sequence), k)]
tokens = np.array([[ids["<cls>"], *(ids[kmer] for kmer in kmers)]], np.int64)  # [batch, tokens]

names = [output.name for output in session.get_outputs()]  # or those that are wanted
outputs = dict(zip(names, session.run(names, {"tokens": tokens}), strict=True))
for name, value in outputs.items():
    print(name, "[batch, tokens, values]:", value.shape)
