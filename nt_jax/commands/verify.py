"""`nt-jax verify`: the same tokens through two checkpoints, the error of every output."""

import argparse

from nt_jax.commands import options as common
from nt_jax.commands.export import DTYPES
from nt_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    for side in ("left", "right"):
        parser.add_argument(side, metavar="DIR[@STEP]", help="workdir or folder of any layout")
    parser.add_argument("--length", type=int, default=None, help="tokens a row at most")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="sets the tolerance")
    parser.add_argument("--tolerance", type=float, default=None, help="of the largest value")
    common.as_json(parser, "certificate")


def run(options: argparse.Namespace) -> int:
    """Compares two checkpoints of any layouts; 0 when they agree, 1 when not."""
    from nt_jax import runtime
    from nt_jax.interchange import runtimes
    from nt_jax.interchange.exporter import EXAMPLE_LENGTH
    from nt_jax.interchange.proof import TOLERANCES, compare, example_tokens

    runtime.configure()
    left, right = options.left, options.right
    if left == right:
        raise InputError(f"{left}: compared with itself; name two checkpoints")
    model, tokenizer = runtimes.describe(left)
    other, vocabulary = runtimes.describe(right)
    if (tokenizer.k, tokenizer.vocabulary) != (vocabulary.k, vocabulary.vocabulary):
        raise InputError(
            f"{left} and {right}: other vocabularies (k={tokenizer.k} {tokenizer.vocabulary}, "
            f"k={vocabulary.k} {vocabulary.vocabulary}); there is no common input"
        )
    longest = min(model.max_positions, other.max_positions)
    length = min(EXAMPLE_LENGTH, longest) if options.length is None else options.length
    if not 2 <= length <= longest:
        raise InputError(f"--length {length}: 2 to {longest} tokens")
    tokens = example_tokens(tokenizer.make(), length)
    sides = {name: runtimes.run(name, tokens) for name in (left, right)}
    allowed = TOLERANCES[options.dtype] if options.tolerance is None else options.tolerance
    certificate = compare(tokens, tokenizer.make().pad_id, sides, allowed)
    print(certificate.json() if options.json else certificate.table(), end="")
    return 0 if certificate.passed else 1
