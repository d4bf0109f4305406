"""Configuration of Nucleotide Transformer v2 for transformers; needs nothing but transformers."""

from transformers import PretrainedConfig


class NTConfig(PretrainedConfig):
    """Sizes and settings of a rotary Nucleotide Transformer.

    Named as in ESM's configuration where ESM has the setting. `intermediate_size` is F: a gated
    first projection has 2F columns. `max_position_embeddings` counts two rows that hold no
    position, so inputs may have max_position_embeddings - 2 tokens. `head_dim` is the size K of a
    head, None meaning hidden_size / num_attention_heads. `rope_rescale` s extends the context: the
    base becomes rope_theta * s^(K/(K-2)). `token_dropout` switches ESM's rescaling on, for a share
    `token_dropout_ratio` of masks in training. `embed_scale` is a factor on the token embeddings.
    """

    model_type = "nt"

    def __init__(
        self,
        vocab_size=4107,
        mask_token_id=2,
        pad_token_id=1,
        hidden_size=512,
        num_hidden_layers=12,
        num_attention_heads=16,
        head_dim=None,
        intermediate_size=2048,
        hidden_act="silu",
        ffn_gated=True,
        add_bias_fnn=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=2050,
        position_embedding_type="rotary",
        rope_theta=10000.0,
        rope_rescale=1.0,
        embed_scale=1.0,
        emb_layer_norm_before=False,
        token_dropout=False,
        token_dropout_ratio=0.12,
        layer_norm_eps=1e-5,
        initializer_range=0.02,
        tie_word_embeddings=False,
        **kwargs,
    ):
        if position_embedding_type != "rotary" or tie_word_embeddings:
            raise ValueError(
                "this code has rotary positions and an output projection of its own, not "
                f"position_embedding_type={position_embedding_type!r}, "
                f"tie_word_embeddings={tie_word_embeddings}"
            )
        super().__init__(
            pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs
        )
        self.vocab_size = vocab_size
        self.mask_token_id = mask_token_id
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.head_dim = head_dim
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.ffn_gated = ffn_gated
        self.add_bias_fnn = add_bias_fnn
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.position_embedding_type = position_embedding_type
        self.rope_theta = rope_theta
        self.rope_rescale = rope_rescale
        self.embed_scale = embed_scale
        self.emb_layer_norm_before = emb_layer_norm_before
        self.token_dropout = token_dropout
        self.token_dropout_ratio = token_dropout_ratio
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range

    @property
    def head_size(self):
        """Size K of one attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


# save_pretrained then takes this file along, in every version.
NTConfig.register_for_auto_class()
