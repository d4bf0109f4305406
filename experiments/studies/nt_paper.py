r"""The grid of the Nucleotide Transformer paper: four v1 runs, four v2 runs, and their variants.

    nt-jax study plan nt_paper --topology v5p-64 --estimate
    nt-jax study run nt_paper --out DIR --data human_ref=H 1000g=G multispecies=M6 \
      multispecies_12kb=M12

v1: 500M on the human reference, 500M and 2.5B on 1000 Genomes, 2.5B on 850 species. v2: 50M, 100M,
250M and 500M on 850 species. Every hyper-parameter is that of the experiment of the same name,
whose docstring says what is published. Where sources disagree both variants are runs:

- v1 500M: 50B tokens in the paper (S), 300B on the model card (V);
- v2 500M: sequences of 2,048 tokens in the paper (S), 1,000 on the card (V).

Tag `variant`: paper or card where they differ. The dataset is named by its windows as well:
`multispecies` has those of 6.2 kb, `multispecies_12kb` the 12-kb ones.

Evaluation: masked loss on the human validation windows (chr21) for every run, cut to 1,000 tokens
as those windows are; probes on the 18 tasks of the revised set. To expect (S): median accuracy
.202, .198, .216, .219 of the four v1 runs on 6-kb human windows; mean MCC .769 of v2 250M.

Tags: V verified in a public source, S from digests of the paper.
"""

from nt_jax.registry import find_experiment
from nt_jax.studies.grid import LossOn, Probe, Study, StudyRun, amount

_RUNS = (
    # experiment, size, data, dataset, variant, tokens (S or V; whole steps come within 0.1 %)
    ("nt_v1_500m_human_ref_50b", "500M", "human_ref", "human_ref", "paper", 50),
    ("nt_v1_500m_human_ref", "500M", "human_ref", "human_ref", "card", 300),
    ("nt_v1_500m_1000g_50b", "500M", "1000g", "1000g", "paper", 50),
    ("nt_v1_500m_1000g", "500M", "1000g", "1000g", "card", 300),
    ("nt_v1_2b5_1000g", "2.5B", "1000g", "1000g", "", 300),
    ("nt_v1_2b5_multispecies", "2.5B", "multispecies", "multispecies", "", 300),
    ("nt_v2_50m_multispecies", "50M", "multispecies", "multispecies_12kb", "", 300),
    ("nt_v2_100m_multispecies", "100M", "multispecies", "multispecies_12kb", "", 300),
    ("nt_v2_250m_multispecies", "250M", "multispecies", "multispecies_12kb", "", 800),
    ("nt_v2_500m_multispecies", "500M", "multispecies", "multispecies_12kb", "paper", 1000),
    ("nt_v2_500m_multispecies_1000", "500M", "multispecies", "multispecies", "card", 1000),
)
_TASKS = (
    "promoter_all", "promoter_tata", "promoter_no_tata", "enhancers", "enhancers_types",
    "splice_sites_all", "splice_sites_acceptors", "splice_sites_donors", "H2AFZ", "H3K27ac",
    "H3K27me3", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K9ac", "H3K9me3", "H4K20me1",
)  # fmt: skip


def study() -> Study:
    """Eleven runs: the eight models, and three variants of which sources disagree."""
    return Study(
        name="nt_paper",
        question="Which of size, data and tokens made the Nucleotide Transformers better?",
        runs=tuple(_run(*row) for row in _RUNS),
    )


def _run(name: str, size: str, data: str, dataset: str, variant: str, billions: int) -> StudyRun:
    experiment = find_experiment(name)
    tags = {
        "generation": name.split("_")[1],
        "size": size,
        "source": data,
        "tokens": amount(billions * 10**9),
        "length": str(experiment.data.sequence_length),
        "seed": str(experiment.train.seed),
    }
    return StudyRun(
        name=name,
        experiment=experiment,
        source=dataset,
        tags={**tags, **({"variant": variant} if variant else {})},
        losses_on=(LossOn(source="human_ref", length=1000),),
        probes=tuple(Probe(task=f"nt/{task}") for task in _TASKS),
    )
