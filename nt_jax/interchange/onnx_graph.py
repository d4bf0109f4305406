"""The forward pass as an ONNX graph, node by node; no weight is needed to make it.

Written by hand and not traced: every variation of our model is covered without a second framework,
weights keep their published names, and the arithmetic is what it says, float32 throughout.
B batch, T tokens, D width, H heads, K head size, V vocabulary, L layers.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nt_jax import __version__
from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.interchange.weights import ROOT
from nt_jax.model.attention import MASKED

OPSET, IR_VERSION = 17, 8
"""ONNX 1.12 (2022): the first with LayerNormalization; runtimes since then can read it."""
COSINES, SINES = "rotary/cosines", "rotary/sines"
"""Initializers [max_positions, K/2] of models with rotary positions: tables, not weights."""

# So that tensors can be memory-mapped: onnx.proto recommends pages of 4 kB, and Windows maps in
# units of 64 kB. The wider one for large tensors alone, else small models would be padding.
_PAGE, _UNIT, _LARGE = 4096, 65_536, 1 << 20
_HEAD = f"{ROOT}/~/esm_roberta_lm_head/~"
_Tables: TypeAlias = tuple[str, str] | None


class Place(NamedTuple):
    """A float32 tensor in the data file."""

    shape: tuple[int, ...]
    offset: int
    """Bytes before it."""

    @property
    def length(self) -> int:
        """Bytes of it."""
        return 4 * math.prod(self.shape)


def place_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Place]:
    """Where each float32 tensor lies, one behind the other."""
    places, end = {}, 0
    for name, shape in shapes.items():
        unit = _UNIT if 4 * math.prod(shape) >= _LARGE else _PAGE
        places[name] = place = Place(shape, -(-end // unit) * unit)
        end = place.offset + place.length
    return places


def make_model(
    model: ModelConfig,
    tokenizer: TokenizerConfig,
    places: Mapping[str, Place],
    location: str,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """The model; weights (published names) and rotary tables lie at `places` of file `location`.

    Input `tokens`: int64 [B, T] for any B and any T up to max_positions; a longer one fails in a
    node whose name says the limit. Outputs, float32: `logits` [B, T, V], 0 at pads, and
    `embedding_1` to `embedding_L` [B, T, D], the last one being the output of the head's first
    LayerNorm.
    """
    graph = _Graph()
    _forward(graph, model, tokenizer)
    last = model.num_layers
    docs = {f"embedding_{i}": f"Output of block {i}." for i in range(1, last)}
    docs[f"embedding_{last}"] = "Output of the last block behind the head's first LayerNorm."
    outputs = [_output("logits", "Of every token; 0 at <pad>.", tokenizer.make().vocab_size)]
    outputs += [_output(name, doc, model.embed_dim) for name, doc in docs.items()]
    initializers = [_external(name, place, location) for name, place in places.items()]
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "nucleotide_transformer",
            [_tokens(model)],
            outputs,
            [*initializers, *graph.constants.values()],
            doc_string="Encoder and masked-language-model head of a Nucleotide Transformer.",
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nt-jax",
        producer_version=__version__,
        doc_string="DNA language model: k-mer tokens to logits and the embedding of every layer.",
    )
    helper.set_model_props(made, dict(metadata))
    return made


def _tokens(model: ModelConfig) -> onnx.ValueInfoProto:
    # int64, which is what programs written for models that came out of PyTorch feed.
    doc = (
        "Ids of vocab.txt (the line number, from 0): <cls> in front, <pad> behind; "
        f"at most {model.max_positions} a row."
    )
    return helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "length"], doc)


def _output(name: str, doc: str, width: int) -> onnx.ValueInfoProto:
    shape: Sequence[str | int] = ["batch", "length", width]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape, doc)


def _external(name: str, place: Place, location: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=place.shape)
    tensor.data_location = TensorProto.EXTERNAL
    where = {"location": location, "offset": place.offset, "length": place.length}
    for key, value in where.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


class _Graph:
    """Nodes in the order in which they are added, and the small constants they share."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._scope, self._names = "", Counter[str]()

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes added inside are called `NAME/...`."""
        before, self._scope = self._scope, name
        yield
        self._scope = before

    def add(
        self, operator: str, *inputs: str, name: str = "", output: str = "", **attributes: Any
    ) -> str:
        """Adds a node called after its operator or `name`; returns the name of its output."""
        name = self._unique(name or operator)
        node = helper.make_node(operator, inputs, [output or name], name, **attributes)
        self.nodes.append(node)
        return node.output[0]

    def halves(self, x: str) -> tuple[str, str]:
        """Both halves of the last axis."""
        name = self._unique("Split")
        first, second = f"{name}/first", f"{name}/second"
        self.nodes.append(helper.make_node("Split", [x], [first, second], name, axis=-1))
        return first, second

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self._constant(f"float/{value!r}", np.float32(value))

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self._constant(f"int/{value}", np.int64(value))

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self._constant(f"ints/{'_'.join(map(str, values))}", np.array(values, np.int64))

    def _constant(self, name: str, value: np.generic | np.ndarray) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _unique(self, name: str) -> str:
        name = f"{self._scope}/{name}".lstrip("/")
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}_{self._names[name]}"


def _forward(graph: _Graph, model: ModelConfig, tokenizer: TokenizerConfig) -> None:
    """From `tokens` to all outputs."""
    vocabulary = tokenizer.make()
    add = graph.add
    tokens, length = _checked_tokens(graph, model.max_positions)
    pad = add("Equal", tokens, graph.integer(vocabulary.pad_id), name="is_pad")
    # Hides pads as keys, [B, 1, 1, T]; what pads see as queries, nothing reads.
    hidden = add("Unsqueeze", pad, graph.integers(1, 2), name="hidden_keys")
    bias = add("Where", hidden, graph.number(MASKED), graph.number(0.0), name="key_bias")
    tables: _Tables = None
    if model.positions == "rotary":
        first = graph.integers(0)
        with graph.scope("rotary"):
            cos, sin = (add("Slice", name, first, length, first) for name in (COSINES, SINES))
        tables = cos, sin
    x = _embed(graph, model, tokens, pad, vocabulary.pad_id, vocabulary.mask_id)
    for layer in range(1, model.num_layers + 1):
        block = f"{ROOT}/attention_layer_{layer - 1}/~"
        normed = _layer_norm(graph, model, f"{block}/mha_layer_norm", x)
        mixed = _attention(graph, model, f"{block}/mha", normed, bias, tables)
        x = add("Add", x, mixed, name=f"{block}/after_attention")
        normed = _layer_norm(graph, model, f"{block}/final_layer_norm", x)
        mixed = _feed_forward(graph, model, block, normed)
        output = f"embedding_{layer}" if layer < model.num_layers else ""
        x = add("Add", x, mixed, name=f"{block}/after_feed_forward", output=output)
    output = f"embedding_{model.num_layers}"
    x = _layer_norm(graph, model, f"{_HEAD}/emb_layer_norm_after", x, output)
    x = _linear(graph, f"{_HEAD}/lm_head_fc_1", x)
    with graph.scope(f"{_HEAD}/lm_head_fc_1"):
        x = _gelu(graph, x)
    x = _layer_norm(graph, model, f"{_HEAD}/lm_head_layer_norm", x)
    x = _linear(graph, f"{_HEAD}/lm_final_fc", x)
    pads = add("Unsqueeze", pad, graph.integers(2), name="pad_logits")
    add("Where", pads, graph.number(0.0), x, name="masked_logits", output="logits")


def _checked_tokens(graph: _Graph, longest: int) -> tuple[str, str]:
    """The tokens [B, T], and T [1]; a run with a longer input fails here.

    Tables alone would not do: a slice beyond the end is only shorter, and a look-up beyond it need
    not fail on a GPU. A reshape to another size does everywhere, and runtimes name the node.
    """
    first = graph.integers(0)
    length = graph.add("Shape", "tokens", start=1, end=2, name="length")
    kind = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    zeros = graph.add("ConstantOfShape", graph.integers(longest), name="zeros", value=kind)
    zeros = graph.add("Slice", zeros, first, length, first, name="zeros_of_length")
    limit = f"input_must_have_at_most_{longest}_tokens"
    zeros = graph.add("Reshape", zeros, length, name=limit)
    return graph.add("Add", "tokens", zeros, name="checked_tokens"), length


def _embed(
    graph: _Graph, model: ModelConfig, tokens: str, pad: str, pad_id: int, mask_id: int
) -> str:
    """Token (and learned position) embeddings with ESM's token dropout, [B, T, D]."""
    add, number = graph.add, graph.number
    with graph.scope("embed"):
        x = add("Gather", f"{ROOT}/~/embed/embeddings", tokens, name="tokens")
        if model.embed_scale != 1.0:
            x = add("Mul", x, number(model.embed_scale), name="scaled")
        real = add("Not", pad, name="is_real")
        if model.token_dropout:
            masks = add("Equal", tokens, graph.integer(mask_id), name="is_mask")
            count, of = (
                add("ReduceSum", add("Cast", which, to=TensorProto.FLOAT), graph.integers(1))
                for which in (masks, real)
            )
            observed = add("Div", count, add("Max", of, number(1.0)), name="share_of_masks")
            rest = add("Max", add("Sub", number(1.0), observed), number(1e-6))
            scale = add("Div", number(1.0 - model.token_dropout), rest)
            factor = add("Where", masks, number(0.0), scale, name="token_dropout")
            x = add("Mul", x, add("Unsqueeze", factor, graph.integers(2)))
        if model.positions == "learned":
            ones = add("Cast", real, to=TensorProto.INT64)
            index = add("Mul", add("CumSum", ones, graph.integer(1)), ones)
            index = add("Add", index, graph.integer(pad_id), name="positions")
            table = f"{ROOT}/~/esm_learned_positional_embeddings/~/embed/embeddings"
            x = add("Add", x, add("Gather", table, index))
    if model.embed_layer_norm:
        x = _layer_norm(graph, model, f"{ROOT}/~/emb_layer_norm_before", x)
    return x


def _attention(
    graph: _Graph, model: ModelConfig, module: str, x: str, bias: str, tables: _Tables
) -> str:
    """Multi-head self-attention of x [B, T, D]; bias [B, 1, 1, T]."""
    add = graph.add
    split = graph.integers(0, 0, model.num_heads, model.head_size)  # 0: as it is
    merged = graph.integers(0, 0, model.num_heads * model.head_size)
    heads = {}
    for name in ("query", "key", "value"):
        flat = _linear(graph, f"{module}/{name}", x)
        with graph.scope(f"{module}/{name}"):
            part = add("Transpose", add("Reshape", flat, split), perm=[0, 2, 1, 3])
            if tables is not None and name != "value":
                part = _rotate(graph, part, tables)
        heads[name] = part
    with graph.scope(module):
        key = add("Transpose", heads["key"], perm=[0, 1, 3, 2])
        scale = graph.number(model.head_size**-0.5)
        scores = add("Mul", add("MatMul", heads["query"], key, name="scores"), scale)
        maps = add("Softmax", add("Add", scores, bias), axis=-1)
        mixed = add("MatMul", maps, heads["value"], name="mixed")
        mixed = add("Reshape", add("Transpose", mixed, perm=[0, 2, 1, 3]), merged)
    return _linear(graph, f"{module}/mha_output", mixed)


def _rotate(graph: _Graph, x: str, tables: tuple[str, str]) -> str:
    """Rotates pair (i, i + K/2) of every head of x [B, H, T, K] by the angle of its position."""
    add, (cos, sin) = graph.add, tables
    first, second = graph.halves(x)
    left = add("Sub", add("Mul", first, cos), add("Mul", second, sin))
    right = add("Add", add("Mul", second, cos), add("Mul", first, sin))
    return add("Concat", left, right, axis=-1)


def _feed_forward(graph: _Graph, model: ModelConfig, block: str, x: str) -> str:
    """fc1 -> activation -> fc2; gated: the activated first half of fc1 times its second half."""
    activation = {"gelu": _gelu, "swish": _swish}[model.ffn_activation]
    hidden = _linear(graph, f"{block}/fc1", x, bias=model.ffn_bias)
    with graph.scope(f"{block}/fc1"):
        if model.ffn_gated:
            first, second = graph.halves(hidden)
            hidden = graph.add("Mul", activation(graph, first), second, name="gated")
        else:
            hidden = activation(graph, hidden)
    return _linear(graph, f"{block}/fc2", hidden, bias=model.ffn_bias)


def _gelu(graph: _Graph, x: str) -> str:
    """Exact GELU, in the form that runtimes know as one operation."""
    erf = graph.add("Erf", graph.add("Div", x, graph.number(math.sqrt(2.0))))
    double = graph.add("Mul", x, graph.add("Add", erf, graph.number(1.0)))
    return graph.add("Mul", double, graph.number(0.5))


def _swish(graph: _Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def _linear(graph: _Graph, module: str, x: str, bias: bool = True) -> str:
    with graph.scope(module):
        y = graph.add("MatMul", x, f"{module}/w")
        return graph.add("Add", y, f"{module}/b") if bias else y


def _layer_norm(graph: _Graph, model: ModelConfig, module: str, x: str, output: str = "") -> str:
    """LayerNorm of the last axis.

    The mean is taken off first, though the operator would do it again: older runtimes compute the
    variance as E[x^2] - E[x]^2, which is exact only around 0 (onnxruntime 1.19: wrong by 1 % where
    the mean is 100 standard deviations).
    """
    with graph.scope(module):
        centred = graph.add("Sub", x, graph.add("ReduceMean", x, axes=[-1]))
        return graph.add(
            "LayerNormalization",
            centred,
            f"{module}/scale",
            f"{module}/offset",
            output=output,
            epsilon=model.layer_norm_epsilon,
        )
