import jax
import pytest

from nt_jax.config import DataConfig, Experiment, ModelConfig, TokenizerConfig
from nt_jax.evaluation.loading import LoadedModel, from_params
from nt_jax.model.factory import build_model
from nt_jax.tokenizers import KmerTokenizer

EXPERIMENT = Experiment(
    name="tiny",
    model=ModelConfig(num_layers=2, num_heads=2, embed_dim=16, ffn_dim=32, max_positions=40),
    tokenizer=TokenizerConfig(k=3),
    data=DataConfig(sequence_length=24),
)


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    """Two layers, 3-mers, a context of 24 tokens (69 bases); random parameters."""
    model = build_model(EXPERIMENT.model, KmerTokenizer(k=3))
    return from_params(jax.jit(model.init)(jax.random.key(3)), 5, EXPERIMENT)
