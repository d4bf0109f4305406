"""Sums of attention by class, against loops over the maps that `LoadedModel.apply` gives."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipelines.elements import CLASSES
from nt_jax.config import DataConfig, Experiment, ModelConfig, TokenizerConfig
from nt_jax.evaluation.elements import attention
from nt_jax.evaluation.elements.attention import sum_attention
from nt_jax.evaluation.elements.statistics import enrichment, usable
from nt_jax.evaluation.elements.tables import attention_cells
from nt_jax.evaluation.elements.windows import ElementWindows
from nt_jax.evaluation.loading import LoadedModel, from_params
from nt_jax.model.factory import build_model

THRESHOLD = 0.06


@pytest.fixture(scope="module")
def sums(loaded: LoadedModel, windows: ElementWindows):
    return sum_attention(loaded, windows, THRESHOLD, seed=4, rows=5)


def test_sums_equal_loops_over_the_maps(loaded, windows, sums):
    number = 0
    for batch in windows.batches(14, seed=4):
        maps = loaded.apply(batch.tokens, attention=True)["attention"]
        for row in range(14):
            for layer in (1, 2):
                own = np.asarray(maps[layer][row], np.float64)
                for head in range(2):
                    place = number, layer - 1, head
                    # Queries and keys but <cls>, which is number 0.
                    weight = own[head, 1:, 1:]
                    for c in range(len(CLASSES)):
                        for turned, labels in (("", batch.fractions), ("turned_", batch.turned)):
                            fraction = np.broadcast_to(labels[row, c, 1:], weight.shape)
                            inside = (weight * fraction).sum()
                            found = getattr(sums, f"{turned}attention").inside[*place, c]
                            assert found == pytest.approx(inside, abs=1e-4)
                            inside = fraction[weight > THRESHOLD].sum()
                            found = getattr(sums, f"{turned}pairs").inside[*place, c]
                            assert found == pytest.approx(inside, abs=1e-4)
                    assert sums.attention.total[place] == pytest.approx(weight.sum(), rel=1e-5)
                    assert sums.pairs.total[place] == (weight > THRESHOLD).sum()
                    cls = own[head, 1:, 0].mean()
                    assert sums.cls[place] == pytest.approx(cls, rel=1e-5)
            expected = batch.fractions[row, :, 1:].mean(axis=1)
            np.testing.assert_allclose(sums.expected[number], expected, rtol=1e-5)
            number += 1
    assert 0 < sums.pairs.total.sum() < 0.5 * 14 * 2 * 2 * 23 * 23


@pytest.mark.parametrize("rows", [1, 14])
def test_the_batch_size_changes_nothing(loaded, windows, sums, rows):
    other = sum_attention(loaded, windows, THRESHOLD, seed=4, rows=rows)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5),
        dataclasses.asdict(sums),
        dataclasses.asdict(other),
    )


def test_layers_in_several_passes_change_nothing(loaded, windows, sums, monkeypatch):
    monkeypatch.setattr(attention, "MAP_BYTES", 2 * 24 * 24 * 4)
    heard = []
    other = sum_attention(
        loaded, windows, THRESHOLD, seed=4, progress=lambda *pair: heard.append(pair)
    )
    np.testing.assert_allclose(other.attention.inside, sums.attention.inside, atol=1e-5)
    np.testing.assert_allclose(other.cls, sums.cls, rtol=1e-5)
    assert heard == [(n, 14) for n in range(1, 15)]


def _silenced(loaded: LoadedModel) -> LoadedModel:
    """The model with queries of zeros: every head attends to all tokens alike."""
    params = jax.tree.map(lambda x: x, loaded.params)
    for part in ("w", "b"):
        own = params["nt/block/attention/query"]
        own[part] = np.zeros_like(own[part])
    return dataclasses.replace(loaded, params=params)


def test_uniform_attention_gives_each_class_its_share_and_nothing_significant(loaded, windows):
    sums = sum_attention(_silenced(loaded), windows, THRESHOLD, seed=4)
    np.testing.assert_allclose(sums.cls, 1 / 24, rtol=1e-5)
    assert sums.pairs.total.sum() == 0
    cells = attention_cells(sums, sums, seed=0)
    ratios = np.array([c.ratio for c in cells if c.measure == "attention" and c.windows])
    np.testing.assert_allclose(ratios, 1.0, atol=2e-6)
    assert len(ratios) == 3 * 9 * 4
    assert not any(cell.significant for cell in cells)
    tested = [cell.p for cell in cells if cell.measure == "attention" and cell.windows >= 10]
    assert tested
    assert set(tested) == {1.0}
    # Nothing observed, nothing claimed.
    assert all(np.isnan(c.ratio) and np.isnan(c.p) for c in cells if c.measure == "pairs")


def test_a_head_that_looks_for_a_class_is_found(genome):
    """One head's keys answer to the tokens GGG alone, and the exons are made of GGG."""
    contig = genome.contigs[0]
    bases = contig.bases.copy()
    rng = np.random.default_rng(0)
    bases[:] = rng.choice(np.frombuffer(b"ACT", np.uint8), len(bases))
    for a, b in genome.elements[0].intervals["exon"]:
        bases[a:b] = ord("G")
    planted = dataclasses.replace(genome, contigs=(dataclasses.replace(contig, bases=bases),))
    experiment = Experiment(
        name="planted",
        model=ModelConfig(
            num_layers=1, num_heads=2, embed_dim=16, ffn_dim=32, max_positions=40,
            positions="learned",
        ),
        tokenizer=TokenizerConfig(k=3),
        data=DataConfig(sequence_length=24),
    )  # fmt: skip
    tokenizer = experiment.tokenizer.make()
    model = build_model(experiment.model, tokenizer)
    params = jax.tree.map(np.array, jax.jit(model.init)(jax.random.key(0)))
    for part in ("query", "key"):
        for name in ("w", "b"):
            params[f"nt/block/attention/{part}"][name][:] = 0.0
    # After LayerNorm the token GGG has a large first coordinate, all others a small one. Head 0
    # asks for it, head 1 asks for nothing.
    params["nt/embed/position"]["embeddings"][:] = 0.0
    table = params["nt/embed/token"]["embeddings"]
    table[:] = 0.1 * rng.normal(size=table.shape)
    table[:, 0] = 0.0
    table[tokenizer.encode("GGG")[1], 0] = 5.0
    params["nt/block/attention/query"]["b"][0, 0] = 3.0
    params["nt/block/attention/key"]["w"][0, 0, 0] = 1.0
    loaded = from_params(params, 1, experiment)
    from nt_jax.evaluation.elements.windows import element_windows

    windows = element_windows(planted, tokenizer, 24)
    sums = sum_attention(loaded, windows, 0.3, seed=0)
    cells = attention_cells(sums, sums, seed=0)
    own = {(c.source, c.element, c.head): c for c in cells if c.measure == "attention"}
    found = own["trained", "exon", 0]
    assert found.significant
    assert found.ratio > 1.5
    assert found.low > 1.4
    assert own["trained", "intergenic", 0].ratio < 0.7
    assert not own["trained", "exon", 1].significant
    assert own["trained", "exon", 1].ratio == pytest.approx(1.0, abs=1e-5)
    # Turned round, the annotation no longer lies on the bases that the head looks for.
    turned = own["turned annotation", "exon", 0]
    assert turned.ratio < 0.75 * found.ratio


def test_cells_are_the_enrichment_of_their_own_class_and_head(sums):
    cells = attention_cells(sums, sums, seed=2)
    used, without, wholly = usable(sums.expected[:, 1])
    assert 0 < without < 14
    for head in range(2):
        one = enrichment(
            sums.pairs.inside[used, 1, head, 1][:, None],
            sums.pairs.total[used, 1, head][:, None],
            sums.expected[used, 1],
            seed=2,
        )
        cell = next(
            c for c in cells
            if (c.source, c.measure, c.element, c.layer, c.head)
            == ("trained", "pairs", "intron", 2, head)
        )  # fmt: skip
        assert (cell.windows, cell.without, cell.wholly) == (used.sum(), without, wholly)
        assert cell.ratio == pytest.approx(one.ratio[0], nan_ok=True)
        assert cell.low == pytest.approx(one.low[0], nan_ok=True)
