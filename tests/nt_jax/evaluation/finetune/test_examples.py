"""What is validation, what feeds which step, and that embeddings are those of `embed`."""

import dataclasses

import jax
import numpy as np
import pytest

from nt_jax.errors import InputError
from nt_jax.evaluation.finetune import examples
from tests.nt_jax.evaluation.finetune.conftest import BASES, make_task


def test_validation_is_a_seventh_with_all_classes_and_no_row_twice():
    task = make_task("classes", train=140, test=0)
    rows = np.arange(20, 140)
    fit, validation = examples.carve(task, rows, seed=3)
    assert sorted([*fit, *validation]) == list(rows)
    assert len(validation) == pytest.approx(120 / 7, abs=1)
    share = task.train.labels[validation].mean()
    assert share == pytest.approx(task.train.labels[rows].mean(), abs=0.06)
    again = examples.carve(task, rows, seed=3)[1]
    np.testing.assert_array_equal(validation, again)
    assert list(validation) != list(examples.carve(task, rows, seed=4)[1])


def test_groups_are_not_torn_between_training_and_validation():
    task = make_task("values", train=60, test=0)
    groups = tuple(str(row // 5) for row in range(60))
    task = dataclasses.replace(task, train=dataclasses.replace(task.train, groups=groups))
    fit, validation = examples.carve(task, np.arange(60), seed=0)
    assert not {groups[row] for row in fit} & {groups[row] for row in validation}


def test_every_epoch_reads_every_sequence_once_in_an_order_of_its_own():
    count, batch = 30, 6
    epochs = [
        np.concatenate([examples.rows_of_step(count, batch, 1, step) for step in range(5)]),
        np.concatenate([examples.rows_of_step(count, batch, 1, step) for step in range(5, 10)]),
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(count))] * 2
    assert list(epochs[0]) != list(epochs[1])
    assert list(epochs[0][:6]) != list(examples.rows_of_step(count, batch, 2, 0))


def test_embeddings_are_those_of_embed(loaded, encoder):
    sequences = ["ACGTTGCAAC" * length for length in (6, 2, 5, 3, 6)]
    ids = examples.encode(loaded.tokenizer, sequences, loaded.context)
    ours = encoder("head", batch=2).embed({}, ids)
    np.testing.assert_allclose(ours, loaded.embed(sequences, layer=2), atol=1e-5)


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ("ACG" * 24, r"row 1 has 25 tokens \(72 bases\), .* trained on 24: crop .* to 69 bases"),
        ("", "row 1 is empty"),
        ("ACGX", "row 1: .*X"),
    ],
)
def test_sequences_that_cannot_be_read_are_refused(loaded, sequence: str, message: str):
    with pytest.raises(InputError, match=message):
        examples.encode(loaded.tokenizer, ["A" * BASES, sequence], loaded.context, "row")


def test_padding_goes_behind(loaded):
    ids = examples.encode(loaded.tokenizer, ["ACGACG", "ACG"], loaded.context)
    tokens = examples.padded(ids, 5, loaded.tokenizer.pad_id)
    assert (tokens == loaded.tokenizer.pad_id).tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]
    assert jax.numpy.asarray(tokens).dtype == np.int32
