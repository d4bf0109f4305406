"""What a stored window is: its fields, and how they are read without TensorFlow.

A record is a serialized `tf.train.Example`. In a dataset with haplotypes it has the alleles of its
window as well, and each reading makes the window of one of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data_pipelines import haplotypes

NAME = "genome_windows"
"""TFDS name of every dataset built here."""


def features(varied: bool) -> tfds.features.FeaturesDict:
    """What a record holds; `varied` is for a dataset with haplotypes."""
    text, scalar = tfds.features.Text, tfds.features.Scalar
    fields = {
        "sequence": text(doc="Upper-case A, C, G, T and N."),
        "source": text(doc="File or assembly the window comes from."),
        "contig": text(doc="Contig name."),
        "start": scalar(np.int64, doc="True 0-based coordinate on the contig."),
    }
    if varied:
        fields |= {
            "before": text(doc="Reference in front of the window that alleles reach into."),
            "after": text(doc="Reference behind it, for haplotypes with deletions."),
            "alleles": text(doc="Alleles and their carriers: data_pipelines.haplotypes.pack."),
        }
    return tfds.features.FeaturesDict(fields)


def parse_record(record: bytes) -> dict[str, Any]:
    """{"sequence": bytes, "source": str, "contig": str, "start": int} of one stored record.

    Raises google.protobuf.message.DecodeError or IndexError for bytes that are no such record.
    """
    values = tf_example_pb2.Example.FromString(record).features.feature
    return {
        "sequence": values["sequence"].bytes_list.value[0],
        "source": values["source"].bytes_list.value[0].decode(),
        "contig": values["contig"].bytes_list.value[0].decode(),
        "start": values["start"].int64_list.value[0],
    }


def parse_sequence(record: bytes) -> bytes:
    """Only the reference bases of one stored record."""
    return (
        tf_example_pb2.Example.FromString(record).features.feature["sequence"].bytes_list.value[0]
    )


class Drawn(NamedTuple):
    """A window as training reads it."""

    bases: bytes
    """As many as the reference window has."""
    haplotype: int | None
    """Number within its source; None for the reference."""
    position: Callable[[int], int]
    """Index of a base -> true 0-based coordinate of its reference base."""


def draw_reference(record: bytes, draw: int) -> Drawn:
    """The reference of a stored record, whatever the draw."""
    values = tf_example_pb2.Example.FromString(record).features.feature
    start = values["start"].int64_list.value[0]
    return Drawn(values["sequence"].bytes_list.value[0], None, lambda index: start + index)


def draw_haplotype(record: bytes, draw: int) -> Drawn:
    """A haplotype of one stored record of a dataset with haplotypes.

    Args:
        record: as stored.
        draw: below 2**32; all haplotypes of the source are equally likely.
    """
    values = tf_example_pb2.Example.FromString(record).features.feature
    sequence, before, after, alleles = (
        values[name].bytes_list.value[0] for name in ("sequence", "before", "after", "alleles")
    )
    origin = values["start"].int64_list.value[0] - len(before)
    many = haplotypes.count(alleles)
    if not many:
        return Drawn(sequence, None, lambda index: origin + index)
    haplotype = (draw * many) >> 32
    changes = haplotypes.carried(alleles, haplotype)
    made = haplotypes.assemble(before + sequence + after, changes, len(before), len(sequence))
    return Drawn(
        made.bases,
        haplotype,
        lambda index: origin + haplotypes.reference_position(changes, made.first + index),
    )
