"""Scores of variants: what each number is. (Everything else in this room serves these definitions.)

**Allele.** REF and ALT without the bases that they share at their ends, moved to the right
through repeats as far as the two haplotypes stay the same (the reference with REF, the same
with ALT), so that its first base is the first one in which they differ. Two spellings of one
change are one allele. On the reverse strand the same is done with the reverse-complemented
haplotypes.

**Window.** T tokens: `<cls>` and T-1 whole k-mers around the allele, which lies in their
middle. The ALT window starts at the same base, the allele is replaced and the right side
refilled from the reference, so that both have the same number of bases. At the ends of a contig
the window moves inward; where there is too little sequence it is shorter. An N ends the
sequence as the end of the contig does. Every token is therefore a k-mer.

**Stretch.** For each phase j = 0 .. k-1: the whole k-mers that begin j bases in front of the
allele, as many as cover the longer of REF and ALT. Phases whose stretch reaches beyond the
sequence are left out; an allele without any is skipped. The *central* phase is the one (of
those left) in which the longer allele lies most nearly in the middle of its stretch, the
smaller j on a tie.

`llr`. For each phase and strand all k-mers of the stretch are masked at once. Scored are the
positions from the first to the last base in which the stretches of the two haplotypes differ:
one base for an SNV, for an indel usually all to the end of the stretch, because everything is
shifted. P(haplotype | phase, strand) is the product over the masked tokens of the probability
that the token has the haplotype's bases at the scored positions, summed over all k-mers that
agree there (softmax over the 4^k k-mers alone). Phase and strand are a uniform latent variable:
P(haplotype) is the mean over all of them, and llr = log P(ALT) - log P(REF), in nats. Where
both haplotypes have the same sequence outside of the stretch (SNV, MNV), they share the masked
input.

`llr_kmer`. The central phase alone, all bases of its k-mers scored: log P(ALT k-mers) - log
P(REF k-mers), the mean of both strands, in nats. (The published way of scoring.)

`l{layer}_{window,tokens}_{cosine,dot,l1,l2}`. Embeddings of the two windows of the central
phase on the forward strand, unmasked, after a layer: `window` is pooled over the window without
`<cls>` and pads, `tokens` is the mean over the k-mers that hold a base of the allele (the k-mer
at its place for an allele of no bases). cosine is 1 - cosine similarity; l1 and l2 are norms of
the difference.
"""
