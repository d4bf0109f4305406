"""A small simulated genome: background, genes and repeats with known coordinates. NumPy only.

Nothing here is real. The statistics are those a DNA language model is asked to learn, made clear
enough for a model of a million parameters: GC isochores, codon and codon-pair bias, splice sites
with branch points, TATA boxes, poly(A) signals, and families of diverged repeats. Base codes are
0-3 for A, C, G, T (so that 3 - code is the complement); coordinates are 0-based and half-open on
the forward strand.
"""

import bisect
import dataclasses
import itertools
import math

import numpy as np

LETTERS = np.frombuffer(b"ACGT", np.uint8)
CHROMOSOMES = {"chr1": 0.26, "chr2": 0.20, "chr3": 0.14, "chr4": 0.10, "chr5": 0.12, "chr6": 0.18}
"""Name -> share of all bases. The last two are held out (dev and test) by the tasks."""

UPSTREAM = 250
"""Bases in front of a transcript that belong to its gene's block (promoter)."""
STOP_CODONS = ("TAA", "TAG", "TGA")
# Motifs as they are read in the direction of transcription. Upper case is invariant, lower case
# holds with MOTIF_FIDELITY and is any base otherwise; IUPAC letters stand for their sets.
TATA_BOX = "TATAwawr"
TATA_SHARE = 0.75
TATA_DISTANCE = (-33, -28)
INITIATOR = "yyAnwyy"
GC_BOX = "gggcgg"
KOZAK = "gccrcc"
DONOR = "GTragt"
BRANCH_POINT = "ctrAy"
BRANCH_DISTANCE = (-38, -24)
ACCEPTOR = "yyyyyyyyyyyyyncAG"
POLYA_SIGNAL = "AATAAA"
POLYA_DISTANCE = (-26, -16)
MOTIF_FIDELITY = 0.9

_IUPAC = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "W": "AT", "S": "CG", "N": "ACGT",
}  # fmt: skip
_CODONS = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
_SENSE_CODONS = [codon for codon in _CODONS if codon not in STOP_CODONS]
_AMINO_ACIDS = dict(
    zip(_CODONS, "KNKNTTTTRSRSIIMIQHQHPPPPRRRRLLLLEDEDAAAAGGGGVVVV*Y*YSSSS*CWCLFLF", strict=True)
)
"""Codon -> amino acid, standard genetic code, codons in the order of A, C, G, T."""

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Gene:
    """One protein-coding gene with one transcript; all spans are on the forward strand."""

    name: str
    strand: str
    transcript: Span
    exons: tuple[Span, ...]
    """In the order of transcription, as are `cds` and `branch_points`."""
    cds: tuple[Span, ...]
    """Coding parts of the exons, start and stop codon included."""
    branch_points: tuple[Span, ...]
    """One an intron."""
    tata_box: Span | None
    promoter: Span
    """The UPSTREAM bases in front of the transcript."""
    polya_signal: Span

    @property
    def introns(self) -> tuple[Span, ...]:
        """Spans between neighbouring exons, in the order of transcription."""
        return tuple(
            (left[1], right[0]) if self.strand == "+" else (right[1], left[0])
            for left, right in itertools.pairwise(self.exons)
        )

    @property
    def start_site(self) -> int:
        """Forward-strand coordinate of the first transcribed base (TSS)."""
        return self.transcript[0] if self.strand == "+" else self.transcript[1] - 1


@dataclasses.dataclass(frozen=True)
class Repeat:
    """One copy of a repeat family."""

    family: str
    strand: str
    span: Span
    divergence: float
    """Share of the bases drawn anew after the copy was made."""


@dataclasses.dataclass(frozen=True)
class Chromosome:
    """Bases with everything that was put into them."""

    name: str
    bases: np.ndarray
    """uint8[n], ASCII A, C, G, T, N."""
    genes: tuple[Gene, ...]
    repeats: tuple[Repeat, ...]
    gap: Span
    """One run of Ns, as assemblies have."""


@dataclasses.dataclass(frozen=True)
class Species:
    """What all chromosomes share: codon usage and the consensus of each repeat family."""

    codon_steps: list[list[float]]
    """[61][61] cumulative probabilities of the next sense codon, given the codon before."""
    repeats: dict[str, tuple[np.ndarray, float]]
    """Family -> (consensus codes, divergence of its copies: young and old families)."""
    units: list[np.ndarray]
    """Codes of the units of simple repeats."""


def make_species(seed: int) -> Species:
    """Codon usage and repeat families of one seed."""
    rng = np.random.default_rng([seed, 0])
    usage = {letter: 0.5 + rng.random() for letter in sorted(set(_AMINO_ACIDS.values()))}
    bias = [usage[_AMINO_ACIDS[codon]] * (0.3 - math.log(rng.random())) for codon in _SENSE_CODONS]
    pair_bias = 0.3 + (-np.log(rng.random((len(bias), len(bias))))) ** 1.5
    steps = np.cumsum(pair_bias * np.array(bias), axis=1)
    steps /= steps[:, -1:]

    def random_codes(length: int, gc: float) -> np.ndarray:
        return _draw(rng.random(length), gc)

    terminal = random_codes(24, 0.5)
    transposon = np.concatenate([terminal, random_codes(330, 0.4), 3 - terminal[::-1]])
    tail = np.zeros(20, np.uint8)
    families = {
        "SIM-SINE1": (np.concatenate([random_codes(260, 0.6), tail]), 0.06),
        "SIM-SINE2": (np.concatenate([random_codes(170, 0.5), tail]), 0.14),
        "SIM-LINE1": (np.concatenate([random_codes(1_200, 0.38), tail]), 0.10),
        "SIM-DNA1": (transposon, 0.12),
        "SIM-LTR1": (random_codes(420, 0.45), 0.04),
    }
    units = [random_codes(size, 0.45) for size in (2, 2, 2, 3, 3, 3, 4, 5, 6, 6)]
    return Species(codon_steps=steps.tolist(), repeats=families, units=units)


def make_chromosome(species: Species, name: str, length: int, seed: int) -> Chromosome:
    """One chromosome of `length` bases; equal arguments give equal bases."""
    rng = np.random.default_rng([seed, 1 + list(CHROMOSOMES).index(name)])
    codes = _background(rng, length)
    genes: list[Gene] = []
    free: list[Span] = []
    position = 0
    while True:
        plan = _plan_gene(species, rng)
        start = position + 150 + int(-1_300 * math.log(1 - rng.random()))
        end = start + UPSTREAM + plan.transcript_length
        if end + 150 > length:
            break
        strand = "+" if rng.random() < 0.5 else "-"
        genes.append(_place_gene(codes, rng, plan, start, strand, f"{name}.g{len(genes) + 1}"))
        free.append((position, start))
        position = end
    free.append((position, length))
    # The gap lies in the longest stretch between genes.
    widest = max(free, key=lambda span: span[1] - span[0])
    middle = (widest[0] + widest[1]) // 2
    half = min(150, (widest[1] - widest[0]) // 4)
    gap = (middle - half, middle + half)
    free.remove(widest)
    free += [(widest[0], gap[0]), (gap[1], widest[1])]
    repeats = tuple(_place_repeats(codes, species, rng, sorted(free)))
    bases = LETTERS[codes]
    bases[gap[0] : gap[1]] = ord("N")
    return Chromosome(name, bases, tuple(genes), repeats, gap)


def motif_codes(motif: str, rng: np.random.Generator) -> np.ndarray:
    """uint8[len(motif)]: one draw of a motif (see MOTIF_FIDELITY)."""
    codes = np.empty(len(motif), np.uint8)
    for i, letter in enumerate(motif):
        kept = letter.isupper() or rng.random() < MOTIF_FIDELITY
        letters = _IUPAC[letter.upper()] if kept else "ACGT"
        codes[i] = "ACGT".index(letters[int(rng.random() * len(letters))])
    return codes


def _draw(uniform: np.ndarray, gc: float) -> np.ndarray:
    """Codes of independent bases with the given GC content, from uniform numbers in [0, 1)."""
    edges = np.cumsum([(1 - gc) / 2, gc / 2, gc / 2])
    return np.searchsorted(edges, uniform, side="right").astype(np.uint8)


def _background(rng: np.random.Generator, length: int) -> np.ndarray:
    """uint8[length] of isochores: a first-order chain with few CpG, its GC content by region."""
    piece = 1_000
    pieces = -(-length // piece)
    gc = np.empty(pieces)
    at = 0
    while at < pieces:
        stretch = 20 + int(rng.random() * 40)
        gc[at : at + stretch] = 0.34 + 0.24 * rng.random()
        at += stretch
    rows = np.stack([(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2], axis=-1)
    steps = np.repeat(rows[:, None], 4, axis=1)  # piece, base before, base
    steps[:, 1, 2] *= 0.25  # CpG is depleted
    steps[:, [0, 3], [0, 3]] *= 1.4  # runs of A and of T are favoured
    steps = np.cumsum(steps, axis=2)
    steps /= steps[:, :, -1:]
    chain = np.empty((pieces, piece), np.uint8)
    state = _draw(rng.random(pieces), 0.45)
    every = np.arange(pieces)
    for column in range(piece):  # all pieces advance by one base
        state = (rng.random(pieces)[:, None] >= steps[every, state]).sum(axis=1).astype(np.uint8)
        chain[:, column] = state
    return chain.ravel()[:length]


@dataclasses.dataclass(frozen=True)
class _GenePlan:
    """Lengths and coding sequence of a gene before it has a place."""

    coding: str
    cuts: tuple[int, ...]
    """Offsets in the coding sequence where introns go."""
    introns: tuple[int, ...]
    utr5: int
    utr3: int

    @property
    def transcript_length(self) -> int:
        return self.utr5 + len(self.coding) + sum(self.introns) + self.utr3


def _plan_gene(species: Species, rng: np.random.Generator) -> _GenePlan:
    codons = 180 + int(260 * rng.random())
    state, letters = _SENSE_CODONS.index("ATG"), ["ATG"]
    for number in rng.random(codons).tolist():
        state = bisect.bisect_right(species.codon_steps[state], number)
        letters.append(_SENSE_CODONS[state])
    coding = "".join([*letters, STOP_CODONS[int(3 * rng.random())]])
    parts = 2 + int(3.5 * rng.random())
    cuts = []
    for part in range(1, parts):
        # Exons end in AG before the donor where the coding sequence offers it nearby.
        wanted = len(coding) * part // parts + int(40 * rng.random()) - 20
        near = sorted(range(wanted - 20, wanted + 20), key=lambda cut: abs(cut - wanted))
        cuts.append(next((cut for cut in near if coding[cut - 2 : cut] == "AG"), wanted))
    introns = tuple(90 + int(-160 * math.log(1 - rng.random())) for _ in cuts)
    return _GenePlan(
        coding, tuple(cuts), introns, 60 + int(90 * rng.random()), 120 + int(180 * rng.random())
    )


def _place_gene(
    codes: np.ndarray,
    rng: np.random.Generator,
    plan: _GenePlan,
    start: int,
    strand: str,
    name: str,
) -> Gene:
    """Writes a gene block over the background in `codes` and returns its coordinates."""
    end = start + UPSTREAM + plan.transcript_length
    block = codes[start:end] if strand == "+" else 3 - codes[start:end][::-1]
    block = block.copy()

    def write(at: int, what: np.ndarray) -> Span:
        block[at : at + what.size] = what
        return at, at + what.size

    def between(limits: Span) -> int:
        return limits[0] + int((limits[1] - limits[0] + 1) * rng.random())

    site = UPSTREAM  # position of the TSS in the block
    tata = None
    for at in (between((-110, -85)), between((-75, -50))):
        write(site + at, motif_codes(GC_BOX, rng))
    if rng.random() < TATA_SHARE:
        tata = write(site + between(TATA_DISTANCE), motif_codes(TATA_BOX, rng))
    write(site - INITIATOR.index("A"), motif_codes(INITIATOR, rng))

    coding = np.searchsorted(LETTERS, np.frombuffer(plan.coding.encode(), np.uint8)).astype("u1")
    at = site + plan.utr5
    write(at - len(KOZAK), motif_codes(KOZAK, rng))
    cds, branch_points = [], []
    edges = [0, *plan.cuts, coding.size]
    for part, (left, right) in enumerate(itertools.pairwise(edges)):
        cds.append(write(at, coding[left:right]))
        at = cds[-1][1]
        if part < len(plan.introns):
            write(at, motif_codes(DONOR, rng))
            at += plan.introns[part]
            branch_at = at + between(BRANCH_DISTANCE)
            branch_points.append(write(branch_at, motif_codes(BRANCH_POINT, rng)))
            write(at - len(ACCEPTOR), motif_codes(ACCEPTOR, rng))
    polya = write(block.size + between(POLYA_DISTANCE), motif_codes(POLYA_SIGNAL, rng))
    codes[start:end] = block if strand == "+" else 3 - block[::-1]

    def forward(span: Span) -> Span:
        if strand == "+":
            return start + span[0], start + span[1]
        return end - span[1], end - span[0]

    exons = list(cds)
    exons[0] = (site, exons[0][1])
    exons[-1] = (exons[-1][0], block.size)
    return Gene(
        name=name,
        strand=strand,
        transcript=forward((site, block.size)),
        exons=tuple(map(forward, exons)),
        cds=tuple(map(forward, cds)),
        branch_points=tuple(map(forward, branch_points)),
        tata_box=forward(tata) if tata else None,
        promoter=forward((0, site)),
        polya_signal=forward(polya),
    )


def _place_repeats(
    codes: np.ndarray, species: Species, rng: np.random.Generator, free: list[Span]
) -> list[Repeat]:
    """Writes repeat copies over the background between the genes."""
    names = [*species.repeats, "SIM-simple"]
    placed = []
    for start, end in free:
        at = start + 20 + int(-120 * math.log(1 - rng.random()))
        while end - 20 - at >= 60:
            room = end - 20 - at
            family = names[int(len(names) * rng.random())]
            if family == "SIM-simple":
                unit = species.units[int(len(species.units) * rng.random())]
                copy = np.resize(unit, min(room, 60 + int(300 * rng.random())))
                divergence = 0.03
            else:
                consensus, divergence = species.repeats[family]
                # Copies lose their front, as those of reverse transcription do.
                kept = 60 + int((consensus.size - 59) * math.sqrt(rng.random()))
                copy = consensus[-min(kept, room) :].copy()
            redrawn = rng.random(copy.size) < divergence
            copy[redrawn] = _draw(rng.random(int(redrawn.sum())), 0.45)
            strand = "+" if rng.random() < 0.5 else "-"
            codes[at : at + copy.size] = copy if strand == "+" else 3 - copy[::-1]
            placed.append(Repeat(family, strand, (at, at + copy.size), divergence))
            at += copy.size + 10 + int(-250 * math.log(1 - rng.random()))
    return placed
