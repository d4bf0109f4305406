"""Facts of the four registered suites, as tables: (task, classes, train, dev, test, length, tag).

Tags: V seen in two public places, or one and our own count of the files; S seen in one; I by
arithmetic from numbers that are. Sizes count sequences as published, before any cleaning; lengths
are in bases.

- NT, revised set: card of its dataset. The first set: card, sizes repeated in the task files of
  HyenaDNA and Caduceus; the card's promoter counts are kept where those differ (they add up to
  DeePromoter's 6,130 TATA sequences). Its histone sets have as many sequences as GUE's, split anew.
- GUE: DNABERT-2, table of the appendix. Train of H3K14ac is digested as 26,483 there, which does
  not add up to the 33,048 of the first NT set; 26,438 does. Lengths as the files have them.
- Genomic Benchmarks: the tests of the package; the length is the median where lengths differ.
"""

Row = tuple[str, int, int | None, int | None, int | None, int, str]

NT: tuple[Row, ...] = (
    ("promoter_all", 2, 30_000, None, 1_584, 300, "V"),
    ("promoter_tata", 2, 5_062, None, 212, 300, "V"),
    ("promoter_no_tata", 2, 30_000, None, 1_372, 300, "V"),
    ("enhancers", 2, 30_000, None, 3_000, 400, "V"),
    ("enhancers_types", 3, 30_000, None, 3_000, 400, "V"),
    ("splice_sites_all", 3, 30_000, None, 3_000, 600, "V"),
    ("splice_sites_acceptors", 2, 30_000, None, 3_000, 600, "V"),
    ("splice_sites_donors", 2, 30_000, None, 3_000, 600, "V"),
    ("H2AFZ", 2, 30_000, None, 3_000, 1_000, "V"),
    ("H3K27ac", 2, 30_000, None, 1_616, 1_000, "V"),
    ("H3K27me3", 2, 30_000, None, 3_000, 1_000, "V"),
    ("H3K36me3", 2, 30_000, None, 3_000, 1_000, "V"),
    ("H3K4me1", 2, 30_000, None, 3_000, 1_000, "V"),
    ("H3K4me2", 2, 30_000, None, 2_138, 1_000, "V"),
    ("H3K4me3", 2, 30_000, None, 776, 1_000, "V"),
    ("H3K9ac", 2, 23_274, None, 1_004, 1_000, "V"),
    ("H3K9me3", 2, 27_438, None, 850, 1_000, "V"),
    ("H4K20me1", 2, 30_000, None, 2_270, 1_000, "V"),
)

NT_FIRST: tuple[Row, ...] = (
    ("promoter_all", 2, 53_276, None, 5_920, 300, "V"),
    ("promoter_tata", 2, 5_509, None, 621, 300, "S"),
    ("promoter_no_tata", 2, 47_767, None, 5_299, 300, "S"),
    ("enhancers", 2, 14_968, None, 400, 200, "V"),
    ("enhancers_types", 3, 14_968, None, 400, 200, "V"),
    ("splice_sites_all", 3, 27_000, None, 3_000, 400, "V"),
    ("splice_sites_acceptors", 2, 19_961, None, 2_218, 600, "S"),
    ("splice_sites_donors", 2, 19_775, None, 2_198, 600, "S"),
    ("H3", 2, 13_468, None, 1_497, 500, "V"),
    ("H3K14ac", 2, 29_743, None, 3_305, 500, "V"),
    ("H3K36me3", 2, 31_392, None, 3_488, 500, "V"),
    ("H3K4me1", 2, 28_509, None, 3_168, 500, "V"),
    ("H3K4me2", 2, 27_614, None, 3_069, 500, "V"),
    ("H3K4me3", 2, 33_119, None, 3_680, 500, "V"),
    ("H3K79me3", 2, 25_953, None, 2_884, 500, "V"),
    ("H3K9ac", 2, 25_003, None, 2_779, 500, "V"),
    ("H4", 2, 13_140, None, 1_461, 500, "V"),
    ("H4ac", 2, 30_685, None, 3_410, 500, "V"),
)

GUE: tuple[Row, ...] = (
    ("EMP/H3", 2, 11_971, 1_497, 1_497, 500, "V"),
    ("EMP/H3K14ac", 2, 26_438, 3_305, 3_305, 500, "I"),
    ("EMP/H3K36me3", 2, 27_904, 3_488, 3_488, 500, "V"),
    ("EMP/H3K4me1", 2, 25_341, 3_168, 3_168, 500, "V"),
    ("EMP/H3K4me2", 2, 24_545, 3_069, 3_069, 500, "V"),
    ("EMP/H3K4me3", 2, 29_439, 3_680, 3_680, 500, "V"),
    ("EMP/H3K79me3", 2, 23_069, 2_884, 2_884, 500, "V"),
    ("EMP/H3K9ac", 2, 22_224, 2_779, 2_779, 500, "V"),
    ("EMP/H4", 2, 11_679, 1_461, 1_461, 500, "V"),
    ("EMP/H4ac", 2, 27_275, 3_410, 3_410, 500, "V"),
    ("mouse/0", 2, 6_478, 810, 810, 101, "S"),
    ("mouse/1", 2, 53_952, 6_745, 6_745, 101, "S"),
    ("mouse/2", 2, 2_620, 328, 328, 101, "V"),
    ("mouse/3", 2, 1_904, 239, 239, 101, "S"),
    ("mouse/4", 2, 15_064, 1_883, 1_883, 101, "V"),
    ("prom/prom_300_all", 2, 47_356, 5_920, 5_920, 300, "V"),
    ("prom/prom_300_notata", 2, 42_452, 5_307, 5_307, 300, "V"),
    ("prom/prom_300_tata", 2, 4_904, 613, 613, 300, "V"),
    ("prom/prom_core_all", 2, 47_356, 5_920, 5_920, 70, "V"),
    ("prom/prom_core_notata", 2, 42_452, 5_307, 5_307, 70, "S"),
    ("prom/prom_core_tata", 2, 4_904, 613, 613, 70, "V"),
    ("splice/reconstructed", 3, 36_496, 4_562, 4_562, 400, "S"),
    ("tf/0", 2, 32_378, 1_000, 1_000, 101, "V"),
    ("tf/1", 2, 30_672, 1_000, 1_000, 101, "S"),
    ("tf/2", 2, 19_000, 1_000, 1_000, 101, "V"),
    ("tf/3", 2, 27_294, 1_000, 1_000, 101, "S"),
    ("tf/4", 2, 19_000, 1_000, 1_000, 101, "V"),
    ("virus/covid", 9, 77_669, 7_000, 7_000, 1_000, "S"),
)

GENOMIC_BENCHMARKS: tuple[Row, ...] = (
    ("demo_coding_vs_intergenomic_seqs", 2, 75_000, None, 25_000, 200, "V"),
    ("demo_human_or_worm", 2, 75_000, None, 25_000, 200, "V"),
    ("drosophila_enhancers_stark", 2, 5_184, None, 1_730, 2_142, "V"),
    ("dummy_mouse_enhancers_ensembl", 2, 968, None, 242, 2_381, "V"),
    ("human_enhancers_cohn", 2, 20_843, None, 6_948, 500, "V"),
    ("human_enhancers_ensembl", 2, 123_872, None, 30_970, 269, "V"),
    ("human_ensembl_regulatory", 3, 231_348, None, 57_713, 401, "V"),
    ("human_nontata_promoters", 2, 27_097, None, 9_034, 251, "V"),
    ("human_ocr_ensembl", 2, 139_804, None, 34_952, 315, "V"),
)
