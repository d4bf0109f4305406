"""Mutant number N of a seed: a pure function of the two and of the excerpts."""

import dataclasses
import random
from collections.abc import Sequence

from fuzzing import mutations
from fuzzing.containers import inflated, joined, packed
from fuzzing.seeds import CONTAINERS, Seed


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A damaged file."""

    number: int
    kind: str
    """Name of the mutation; "several" where there are more than one."""
    container: str
    """"plain", "gzip", "bgzf" or "bcf" of the excerpt."""
    seed: Seed
    data: bytes

    @property
    def family(self) -> str:
        """ "fasta" or "vcf"."""
        return self.seed.format

    @property
    def unharmed(self) -> bool:
        """The file is the excerpt as it was."""
        return self.data == self.seed.file(self.container)


def generator(seed: int, number: int) -> random.Random:
    """The generator of one mutant; its checks go on drawing from it."""
    return random.Random(f"{seed}:{number}")


def mutant(
    excerpts: tuple[Sequence[Seed], Sequence[Seed]], rng: random.Random, number: int
) -> Mutant:
    """Even numbers are FASTA, odd ones VCF."""
    own = excerpts[number % 2]
    table = mutations.VCF if number % 2 else mutations.FASTA
    chosen = rng.choice(own)
    containers = (*CONTAINERS, "bcf") if chosen.bcf else CONTAINERS
    container = rng.choices(containers, [6, 2, 2, 2][: len(containers)])[0]
    if container == "bcf":
        kind, data = _bcf(rng, chosen)
    elif container != "plain" and rng.random() < 0.5:
        kind, data = _compressed(rng, chosen, own, container)
    else:
        text, kinds = chosen.text, []
        for _ in range(rng.choices([1, 2, 3], [7, 2, 1])[0]):
            name = rng.choice([*table, "splice", "joined"])
            kinds.append(name)
            text = _text(rng, name, text, own, table)
        kind = kinds[0] if len(kinds) == 1 else "several"
        data = packed(text, container)
    return Mutant(number, kind, container, chosen, data)


def _text(
    rng: random.Random,
    name: str,
    text: bytes,
    own: Sequence[Seed],
    table: dict[str, mutations.Mutation],
) -> bytes:
    if name in table:
        return table[name](rng, text)
    other = rng.choice(own).text
    if name == "joined":
        return text + other
    return text[: rng.randrange(len(text) + 1)] + other[rng.randrange(len(other) + 1) :]


def _compressed(
    rng: random.Random, chosen: Seed, own: Sequence[Seed], container: str
) -> tuple[str, bytes]:
    whole = chosen.file(container)
    name = rng.choice([*mutations.COMPRESSED, "members", "members joined", "blocks"])
    if name == "members":
        return name, joined(mutations.halves(rng, chosen.text), container)
    if name == "members joined":
        return name, whole + rng.choice(own).file(rng.choice(CONTAINERS))
    if name == "blocks":
        return name, mutations.shuffled_blocks(rng, chosen.text)
    return name, mutations.COMPRESSED[name](rng, whole)


def _bcf(rng: random.Random, chosen: Seed) -> tuple[str, bytes]:
    """Damage to the compressed file, to its blocks, or to the records in them."""
    content = inflated(chosen.bcf)
    name = rng.choice([*mutations.COMPRESSED, "BCF blocks", *(f"BCF {n}" for n in mutations.ANY)])
    if name in mutations.COMPRESSED:
        return name, mutations.COMPRESSED[name](rng, chosen.bcf)
    if name == "BCF blocks":
        return name, mutations.shuffled_blocks(rng, content)
    return name, packed(mutations.ANY[name.removeprefix("BCF ")](rng, content), "bgzf")
