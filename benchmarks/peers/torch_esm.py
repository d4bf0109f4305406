"""Contestant: PyTorch. v1 is transformers' own EsmForMaskedLM, v2 the code that exports carry.

SDPA attention, fused AdamW, on a GPU bfloat16 autocast and torch.compile. Windows are full, so no
padding mask is given. B batch, T tokens, D model width.
"""

import contextlib
import functools
import json
import pathlib
import time
import types
from typing import Any

import numpy as np
import torch
import transformers
from transformers import EsmConfig, EsmForMaskedLM

from nt_jax.interchange.hf_code import modeling_nt
from nt_jax.interchange.hf_code.configuration_nt import NTConfig
from peers import child

CONTACTS = "contact_head."
"""Of proteins: no computation of ours reads it."""

transformers.logging.set_verbosity_error()


def spare_what_can_be(padded: bool) -> None:
    """The exported code makes its rotary tables anew in each pass, and a padding mask.

    The tables are kept here; without pads (`padded`) the mask, which hides nothing then and makes
    SDPA take a slower kernel, is left out.
    """
    make, known = modeling_nt.rotary_tables, {}

    def tables(config: Any, length: int, device: Any) -> Any:
        if length not in known:
            known[length] = make(config, length, device)
        return known[length]

    modeling_nt.rotary_tables = tables
    if padded:
        return
    attend = torch.nn.functional.scaled_dot_product_attention

    def unmasked(query: Any, key: Any, value: Any, mask: Any, dropout: float) -> Any:
        return attend(query, key, value, dropout_p=dropout)

    functional = types.ModuleType("functional")
    functional.__dict__.update(torch.nn.functional.__dict__, scaled_dot_product_attention=unmasked)
    modeling_nt.F = functional


class _Contestant:
    """What training and embedding have in common."""

    def __init__(self, folder: str, compiled: str = "", padded: bool = False):
        self.folder, self.compiled = pathlib.Path(folder), compiled
        self.sizes = json.loads((self.folder / "sizes.json").read_text())
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = getattr(torch, self.sizes["compute_dtype"])
        spare_what_can_be(padded)
        torch.zeros(1, device=self.device)
        self.resident = child.Resident()
        self.model: Any = self._build()

    def _build(self) -> Any:
        values = json.loads((self.folder / "hf.json").read_text())
        own = values["model_type"] == "nt"
        kind, settings = (
            (modeling_nt.NTForMaskedLM, NTConfig) if own else (EsmForMaskedLM, EsmConfig)
        )
        weights = self.folder / "weights"
        if weights.is_dir():
            model = kind.from_pretrained(weights, attn_implementation="sdpa", dtype=torch.float32)
            return model.to(self.device)
        config = settings(**{name: value for name, value in values.items() if name != "auto_map"})
        config._attn_implementation = "sdpa"
        with torch.device(self.device):
            return kind(config)

    def about(self) -> dict[str, Any]:
        """What computes, and the size of the model."""
        named = self.model.named_parameters()
        name = torch.cuda.get_device_name() if self.device == "cuda" else "cpu"
        return {
            "platform": "gpu" if self.device == "cuda" else "cpu",
            "device": name,
            "parameters": sum(x.numel() for path, x in named if CONTACTS not in path),
            "attention": self.model.config._attn_implementation,
            "threads": torch.get_num_threads(),
        }

    def arithmetic(self) -> Any:
        """float32, or autocast to bfloat16."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device, self.dtype)

    def compile_parts(self, length: int) -> None:
        """`model`: the whole of it; `layers`: each layer and the head, which compiles faster."""
        if self.model.config.model_type == "nt":
            # Made here, so that they are constants of the compiled program.
            modeling_nt.rotary_tables(self.model.config, length, torch.device(self.device))
        if self.compiled == "model":
            self.model.compile(dynamic=False)
        elif self.compiled == "layers":
            for layer in self.model.esm.encoder.layer:
                layer.compile(dynamic=False)
            self.model.lm_head.compile(dynamic=False)

    def wait(self) -> None:
        """Until the device has done all it was asked for."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def rest(self) -> None:
        """Between turns, others get the memory that is free."""
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def peak(self) -> int:
        """Bytes of the device, or of this process on a CPU."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return self.resident.peak()


class Train(_Contestant):
    """Steps on batches that are masked beforehand, in `parts` micro-batches."""

    def __init__(self, folder: str, compiled: str = "", padded: bool = False, parts: int = 1):
        super().__init__(folder, compiled, padded)
        self.parts, self.steps = parts, 0
        self.model.train()
        for path, parameter in self.model.named_parameters():
            parameter.requires_grad_(CONTACTS not in path)
        self.optimizer = torch.optim.AdamW(
            [x for x in self.model.parameters() if x.requires_grad],
            lr=self.sizes["learning_rate"],
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.0,
            fused=True,
        )
        self.batches = []
        inputs, labels = (np.load(self.folder / f"{n}.npy") for n in ("inputs", "labels"))
        for pair in zip(inputs, labels, strict=True):
            tensors = [torch.from_numpy(array).long() for array in pair]
            if self.device == "cuda":
                tensors = [tensor.pin_memory() for tensor in tensors]
            self.batches.append(tensors)

    def compile(self) -> float:
        """Seconds that the first step takes more than a later one."""
        self.compile_parts(self.batches[0][0].shape[1])
        if not self.compiled:
            return 0.0
        start = time.perf_counter()
        self._gradient(*self._batch(0))
        self.optimizer.zero_grad(set_to_none=True)
        self.wait()
        first = time.perf_counter() - start
        start = time.perf_counter()
        self._gradient(*self._batch(0))
        self.optimizer.zero_grad(set_to_none=True)
        self.wait()
        self.rest()
        return first - (time.perf_counter() - start)

    def load(self, steps: int) -> list[float]:
        """Losses of the first steps."""
        losses = self._run(steps)
        self.resident.restart()
        self.rest()
        return losses

    def turn(self, steps: int) -> float:
        """Seconds of a step, after one that wakes up what slept while the others worked (and, on
        a GPU, takes back the memory that `rest` gave away)."""
        self._run(1)
        start = time.perf_counter()
        self._run(steps)
        seconds = (time.perf_counter() - start) / steps
        self.rest()
        return seconds

    def _run(self, steps: int) -> list[float]:
        losses: list[Any] = []
        for _ in range(steps):
            losses.append(self._gradient(*self._batch(self.steps % len(self.batches))))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.steps += 1
            if len(losses) > 1:
                losses[-2] = float(losses[-2])
        self.wait()
        return [float(loss) for loss in losses]

    def _batch(self, number: int) -> list[torch.Tensor]:
        return [tensor.to(self.device, non_blocking=True) for tensor in self.batches[number]]

    def _gradient(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss; its gradient goes to the parameters."""
        total: Any = 0.0
        for part in zip(inputs.chunk(self.parts), labels.chunk(self.parts), strict=True):
            with self.arithmetic():
                # Every sequence has as many masked tokens, so means of means are the mean.
                loss = self.model(input_ids=part[0], labels=part[1]).loss / self.parts
            loss.backward()
            total = total + loss.detach()
        return total


class Embed(_Contestant):
    """Mean of the last layer over the real tokens, in inference mode, weights in bfloat16."""

    def __init__(self, folder: str, compiled: str = "", padded: bool = True):
        super().__init__(folder, compiled, padded)
        self.model.eval().to(self.dtype)
        paths = sorted(self.folder.glob("batch_*.npy"))
        self.batches = [torch.from_numpy(np.load(path)).long() for path in paths]
        self.order = np.load(self.folder / "order.npy")
        self.full = not padded
        self.compile_parts(self.batches[0].shape[1])

    def load(self, out: str) -> float:
        """Seconds of the first time, compilation included; the vectors go to a file."""
        start = time.perf_counter()
        vectors = self._embed()
        seconds = time.perf_counter() - start
        np.save(out, vectors)
        self.resident.restart()
        return seconds

    def turn(self) -> float:
        """Seconds for all sequences."""
        start = time.perf_counter()
        self._embed()
        return time.perf_counter() - start

    @torch.inference_mode()
    def _embed(self) -> np.ndarray:
        found = [self._means(tokens.to(self.device, non_blocking=True)) for tokens in self.batches]
        return torch.cat([vectors.cpu() for vectors in found]).numpy()[self.order]

    def _means(self, tokens: torch.Tensor) -> torch.Tensor:
        real = tokens != self.sizes["pad_id"]
        # Without pads no mask, so that SDPA takes its fastest kernel.
        states = self.model.esm(tokens, None if self.full else real).last_hidden_state[:, 1:]
        weights = real[:, 1:, None]
        return (states.float() * weights).sum(1) / weights.sum(1)


class Product:
    """Large matrix products of random numbers: the peak that utilisation is measured against."""

    def __init__(self, size: int, dtype: str):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        make = functools.partial(torch.randn, device=self.device, dtype=getattr(torch, dtype))
        self.left, self.right = make((size, size)), make((size, size))
        self.flops = 2.0 * size**3
        self.turn(0.0)

    def about(self) -> dict[str, Any]:
        """What computes."""
        return {"platform": "gpu" if self.device == "cuda" else "cpu"}

    def turn(self, seconds: float) -> float:
        """FLOP/s over so many seconds, four products at least."""
        count, start = 0, time.perf_counter()
        while count < 4 or time.perf_counter() - start < seconds:
            for _ in range(4):
                self.left @ self.right
            if self.device == "cuda":
                torch.cuda.synchronize()
            count += 4
        return count * self.flops / (time.perf_counter() - start)


if __name__ == "__main__":
    child.serve({"train": Train, "embed": Embed, "product": Product})
