"""Nucleotide Transformer v2 (rotary positions) in PyTorch; needs nothing but torch, transformers.

Parameters are named as in the published PyTorch checkpoints. Pre-LayerNorm blocks; LayerNorm,
softmax and rotary angles are float32 whatever the dtype of the weights. B batch, T tokens,
D hidden_size, H heads, K head size, V vocab_size.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
)

from .configuration_nt import NTConfig

ACTIVATIONS = {"silu": F.silu, "gelu": F.gelu}
# Published checkpoints carry tensors that no computation reads.
UNUSED = [r"contact_head\.", r"position_embeddings\.", r"position_ids$", r"inv_freq$"]


class NTLayerNorm(nn.LayerNorm):
    """LayerNorm computed in float32, returned in the dtype of its input."""

    def forward(self, x):
        """[..., D] -> [..., D]."""
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


def rotary_tables(config, length, device):
    """Float32 cosines and sines [T, K/2], computed in float64 (half-precision angles are noise)."""
    theta, width = config.rope_theta, config.head_size
    if config.rope_rescale != 1.0:
        theta *= config.rope_rescale ** (width / (width - 2))
    # On the CPU, for not every device has float64.
    pairs = torch.arange(0, width, 2, dtype=torch.float64, device="cpu")
    positions = torch.arange(length, dtype=torch.float64, device="cpu")
    angles = positions[:, None] * theta ** -(pairs / width)
    return angles.cos().float().to(device), angles.sin().float().to(device)


def rotate(x, tables):
    """Rotates pair (i, i + K/2) of every head [B, H, T, K] by the angle of its position."""
    cos, sin = tables
    first, second = x.float().chunk(2, dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat(turned, dim=-1).to(x.dtype)


class NTEmbeddings(nn.Module):
    """Token embeddings, with ESM's token dropout where the model was trained with it."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        if config.emb_layer_norm_before:
            self.layer_norm = NTLayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids, inputs_embeds, real):
        """Ids [B, T] or embeddings [B, T, D], and the boolean mask of real tokens -> [B, T, D]."""
        x = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if self.config.embed_scale != 1.0:
            x = x * self.config.embed_scale
        if self.config.token_dropout and input_ids is not None:
            masks = input_ids == self.config.mask_token_id
            observed = masks.sum(1) / real.sum(1).clamp(min=1)
            scale = (1.0 - self.config.token_dropout_ratio) / (1.0 - observed).clamp(min=1e-6)
            x = (x.float() * (scale[:, None] * ~masks)[..., None]).to(x.dtype)
        return self.layer_norm(x) if self.config.emb_layer_norm_before else x


class NTSelfAttention(nn.Module):
    """Projections with biases; SDPA, or the maps themselves where they are asked for."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        width = config.num_attention_heads * config.head_size
        self.query = nn.Linear(config.hidden_size, width)
        self.key = nn.Linear(config.hidden_size, width)
        self.value = nn.Linear(config.hidden_size, width)

    def forward(self, x, real, tables, output_attentions):
        """[B, T, D] -> ([B, T, H * K], attention maps [B, H, T, T] or None)."""
        heads = (*x.shape[:2], self.config.num_attention_heads, self.config.head_size)
        query, key, value = (
            project(x).view(heads).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        query, key = rotate(query, tables), rotate(key, tables)
        bias = torch.zeros(real.shape, dtype=query.dtype, device=query.device)
        bias = bias.masked_fill(~real, torch.finfo(query.dtype).min)[:, None, None, :]
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        if output_attentions or self.config._attn_implementation == "eager":
            scores = query.float() @ key.float().transpose(-1, -2) * query.shape[-1] ** -0.5
            maps = torch.softmax(scores + bias.float(), dim=-1)
            mixed = F.dropout(maps, dropout).to(value.dtype) @ value
        else:
            maps = None
            mixed = F.scaled_dot_product_attention(query, key, value, bias, dropout)
        return mixed.transpose(1, 2).reshape(*x.shape[:2], -1), maps if output_attentions else None


class NTOutput(nn.Module):
    """Projection back to the model width."""

    def __init__(self, config, width, bias):
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size, bias=bias)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x):
        """[B, T, width] -> [B, T, D]."""
        return self.dropout(self.dense(x))


class NTAttention(nn.Module):
    """LayerNorm, self-attention and output projection."""

    def __init__(self, config):
        super().__init__()
        self.self = NTSelfAttention(config)
        self.output = NTOutput(config, config.num_attention_heads * config.head_size, bias=True)
        self.LayerNorm = NTLayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x, real, tables, output_attentions):
        """[B, T, D] -> ([B, T, D], maps)."""
        mixed, maps = self.self(self.LayerNorm(x), real, tables, output_attentions)
        return self.output(mixed), maps


class NTIntermediate(nn.Module):
    """First projection and activation; gated: the activated first half times the second half."""

    def __init__(self, config):
        super().__init__()
        self.gated = config.ffn_gated
        self.activation = ACTIVATIONS[config.hidden_act]
        columns = config.intermediate_size * (2 if self.gated else 1)
        self.dense = nn.Linear(config.hidden_size, columns, bias=config.add_bias_fnn)

    def forward(self, x):
        """[B, T, D] -> [B, T, F]."""
        if not self.gated:
            return self.activation(self.dense(x))
        first, second = self.dense(x).chunk(2, dim=-1)
        return self.activation(first) * second


class NTLayer(nn.Module):
    """One pre-LayerNorm block."""

    def __init__(self, config):
        super().__init__()
        self.attention = NTAttention(config)
        self.intermediate = NTIntermediate(config)
        self.output = NTOutput(config, config.intermediate_size, bias=config.add_bias_fnn)
        self.LayerNorm = NTLayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x, real, tables, output_attentions):
        """[B, T, D] -> ([B, T, D], maps)."""
        mixed, maps = self.attention(x, real, tables, output_attentions)
        x = x + mixed
        return x + self.output(self.intermediate(self.LayerNorm(x))), maps


class NTEncoder(nn.Module):
    """All blocks and the LayerNorm behind them."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList([NTLayer(config) for _ in range(config.num_hidden_layers)])
        self.emb_layer_norm_after = NTLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False

    def forward(self, x, real, output_attentions):
        """[B, T, D] -> (hidden states, L + 1 times [B, T, D]; maps, L times [B, H, T, T])."""
        tables = rotary_tables(self.config, x.shape[1], x.device)
        states, maps = [x], []
        for layer in self.layer:
            run = layer.__call__
            if self.gradient_checkpointing and self.training:
                x, layer_maps = self._gradient_checkpointing_func(
                    run, x, real, tables, output_attentions
                )
            else:
                x, layer_maps = run(x, real, tables, output_attentions)
            states.append(x)
            maps.append(layer_maps)
        states[-1] = self.emb_layer_norm_after(x)
        return tuple(states), tuple(maps) if output_attentions else None


class NTPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation."""

    config_class = NTConfig
    base_model_prefix = "esm"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["NTLayer"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = UNUSED

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


class NTModel(NTPreTrainedModel):
    """The encoder: `last_hidden_state` is the output of the final LayerNorm."""

    _keys_to_ignore_on_load_unexpected = [*UNUSED, r"^lm_head\."]  # noqa: RUF012

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = NTEmbeddings(config)
        self.encoder = NTEncoder(config)
        self.post_init()

    def get_input_embeddings(self):
        """The token embedding."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        """Replaces the token embedding."""
        self.embeddings.word_embeddings = value

    def real_tokens(self, input_ids, inputs_embeds, attention_mask):
        """Boolean [B, T]: what is no padding, told by the mask or else by the ids."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass either input_ids or inputs_embeds")
        if attention_mask is not None:
            return attention_mask.bool()
        if input_ids is not None:
            return input_ids != self.config.pad_token_id
        return torch.ones(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
    ):
        """Hidden state i (1-based) is the output of block i, the last one of the final LayerNorm.

        `attention_mask` [B, T] is 0 at padding; without it `<pad>` is padding. Attention maps are
        computed as in `attn_implementation="eager"` whichever implementation was chosen.
        """
        config = self.config
        real = self.real_tokens(input_ids, inputs_embeds, attention_mask)
        if real.shape[1] > config.max_position_embeddings - 2:
            raise ValueError(
                f"sequence of {real.shape[1]} tokens: the model was trained with at most "
                f"{config.max_position_embeddings - 2}; crop it, or raise "
                "config.max_position_embeddings (and config.rope_rescale)"
            )
        maps_wanted = config.output_attentions if output_attentions is None else output_attentions
        states_wanted = (
            config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        x = self.embeddings(input_ids, inputs_embeds, real)
        states, maps = self.encoder(x, real, bool(maps_wanted))
        output = BaseModelOutput(
            last_hidden_state=states[-1],
            hidden_states=states if states_wanted else None,
            attentions=maps,
        )
        return _returned(output, config, return_dict)


class NTLMHead(nn.Module):
    """Linear D->D, exact GELU, LayerNorm, Linear D->V."""

    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = NTLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x):
        """[B, T, D] -> logits [B, T, V]."""
        return self.decoder(self.layer_norm(F.gelu(self.dense(x)))) + self.bias


class NTForMaskedLM(NTPreTrainedModel):
    """Masked language model; logits at padding are 0."""

    def __init__(self, config):
        super().__init__(config)
        self.esm = NTModel(config)
        self.lm_head = NTLMHead(config)
        self.post_init()

    def get_output_embeddings(self):
        """The output projection, which is not tied to the embedding."""
        return self.lm_head.decoder

    def set_output_embeddings(self, value):
        """Replaces the output projection."""
        self.lm_head.decoder = value

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        labels=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
    ):
        """`labels` [B, T]: ids to predict, -100 where nothing is to be predicted."""
        real = self.esm.real_tokens(input_ids, inputs_embeds, attention_mask)
        encoded = self.esm(
            input_ids, real, inputs_embeds, output_attentions, output_hidden_states, True
        )
        logits = self.lm_head(encoded.last_hidden_state).masked_fill(~real[..., None], 0.0)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        output = MaskedLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return _returned(output, self.config, return_dict)


class NTClassificationHead(nn.Module):
    """Linear, tanh, Linear on the hidden state of `<cls>`."""

    def __init__(self, config):
        super().__init__()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x):
        """[B, T, D] -> [B, labels]."""
        x = torch.tanh(self.dense(self.dropout(x[:, 0])))
        return self.out_proj(self.dropout(x))


class NTForSequenceClassification(NTPreTrainedModel):
    """Classification (or regression, with one label) of whole sequences."""

    _keys_to_ignore_on_load_unexpected = [*UNUSED, r"^lm_head\."]  # noqa: RUF012

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.esm = NTModel(config)
        self.classifier = NTClassificationHead(config)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        labels=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
    ):
        """`labels`: class ids [B], values [B] with one label, or 0 and 1 [B, labels]."""
        encoded = self.esm(
            input_ids, attention_mask, inputs_embeds, output_attentions, output_hidden_states, True
        )
        logits = self.classifier(encoded.last_hidden_state)
        output = SequenceClassifierOutput(
            loss=None if labels is None else self.loss(logits.float(), labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return _returned(output, self.config, return_dict)

    def loss(self, logits, labels):
        """Loss of config.problem_type, which the labels tell where it is not set."""
        kind = self.config.problem_type
        if kind is None and self.num_labels == 1:
            kind = "regression"
        elif kind is None:
            kind = "multi_label" if labels.is_floating_point() else "single_label"
        if kind == "regression":
            return F.mse_loss(logits.squeeze(-1), labels.float().view_as(logits.squeeze(-1)))
        if kind.startswith("multi_label"):
            return F.binary_cross_entropy_with_logits(logits, labels.float())
        return F.cross_entropy(logits, labels.view(-1))


def _returned(output, config, return_dict):
    wanted = config.return_dict if return_dict is None else return_dict
    return output if wanted else output.to_tuple()


# save_pretrained then takes this file along, in every version.
NTModel.register_for_auto_class("AutoModel")
NTForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
NTForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
