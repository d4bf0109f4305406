"""Loads exported folders with transformers alone and compares them with stored outputs.

Needs torch, transformers and NumPy, nothing of this project: test_hf.py calls the checks where
the tests run, and test_hf_versions.py runs this file in environments of their own:

    python hf_check.py CASE ...

A CASE is a folder with `export/` (what write_hf wrote), `expected.npz` (tokens, logits,
embeddings_i, attention_i) and `strings.json` ([text, token ids] pairs).
"""

import json
import pathlib
import sys
import tempfile
import traceback

import numpy as np
import torch
import transformers
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

TOLERANCE = 1e-5
PAD, MASK = 1, 2
DTYPE = "torch_dtype" if transformers.__version__.startswith("4.") else "dtype"


class Case:
    def __init__(self, folder):
        self.export = pathlib.Path(folder) / "export"
        self.expected = dict(np.load(pathlib.Path(folder) / "expected.npz"))
        self.strings = json.loads((pathlib.Path(folder) / "strings.json").read_text())
        self.tokens = torch.tensor(self.expected["tokens"], dtype=torch.long)
        self.real = self.tokens != PAD
        self.config = json.loads((self.export / "config.json").read_text())
        self.own_code = "auto_map" in self.config
        self.layers = self.config["num_hidden_layers"]

    def load(self, auto_class, folder=None, **options):
        """The model, with everything found that it has and the file, but for `absent`."""
        absent = options.pop("absent", ())
        if self.own_code:
            options["trust_remote_code"] = True
        model, info = auto_class.from_pretrained(
            folder or self.export, output_loading_info=True, **options
        )
        missing = [key for key in info["missing_keys"] if not key.startswith(tuple(absent))]
        assert not missing, missing
        assert not info["mismatched_keys"], info
        if auto_class is AutoModelForMaskedLM or self.own_code:
            assert not info["unexpected_keys"], info
        return model.eval()

    def masked_lm(self, **options):
        return self.load(AutoModelForMaskedLM, **options)

    def run(self, model, **options):
        with torch.no_grad():
            return model(input_ids=self.tokens, attention_mask=self.real.long(), **options)

    def assert_close(self, found, name, tolerance=TOLERANCE):
        """Compares [B, T, ...] at the positions that are no padding."""
        stored = self.expected[name]
        assert found.shape == stored.shape, name
        assert torch.isfinite(found).all(), name
        error = np.abs(found.float().numpy() - stored)
        if name.startswith("attention"):  # [B, H, query, key]
            error = error.swapaxes(1, 2)
        worst = error[self.real.numpy()].max() / np.abs(stored).max()
        assert worst <= tolerance, f"{name} is off by {worst:.2g}"


def implementations(case):
    """SDPA came to stock ESM after 4.40; our own code has it everywhere."""
    stock = transformers.models.esm.modeling_esm.EsmPreTrainedModel
    both = case.own_code or getattr(stock, "_supports_sdpa", False)
    return ("eager", "sdpa") if both else ("eager",)


def check_outputs(case):
    assert 0 < case.real.float().mean() < 1
    assert (case.tokens == MASK).any()
    for implementation in implementations(case):
        model = case.masked_lm(attn_implementation=implementation)
        assert model.config._attn_implementation == implementation
        maps = implementation == "eager" or case.own_code
        out = case.run(model, output_hidden_states=True, output_attentions=maps)
        case.assert_close(out.logits, "logits")
        case.assert_close(case.run(model).logits, "logits")
        assert len(out.hidden_states) == case.layers + 1
        for layer in range(1, case.layers + 1):
            case.assert_close(out.hidden_states[layer], f"embeddings_{layer}")
            if maps:
                case.assert_close(out.attentions[layer - 1], f"attention_{layer}")


def check_padding(case):
    model = case.masked_lm()
    batch = case.run(model).logits
    for row, ids in enumerate(case.tokens):
        ids = ids[case.real[row]]
        alone = model(input_ids=ids[None]).logits[0]
        error = (alone - batch[row, : len(ids)]).abs().max()
        assert error <= TOLERANCE * batch.abs().max()
    if case.own_code:
        assert not batch[~case.real].any()
        assert torch.equal(model(input_ids=case.tokens).logits, batch)


def check_base_model(case):
    model = case.load(AutoModel, absent=("pooler.", "esm.pooler."))
    last = f"embeddings_{case.layers}"
    case.assert_close(case.run(model).last_hidden_state, last)
    case.assert_close(case.run(model, return_dict=False)[0], last)


def check_half_precision(case):
    for dtype, tolerance in ((torch.bfloat16, 0.05), (torch.float16, 0.01)):
        for implementation in implementations(case):
            model = case.masked_lm(**{DTYPE: dtype, "attn_implementation": implementation})
            logits = case.run(model).logits
            assert logits.dtype == dtype
            case.assert_close(logits, "logits", tolerance)


def check_angles_are_exact_far_away(case):
    """Angles in half precision would be off by radians beyond position 1000."""
    if not case.own_code:
        return
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(6, 20, (1, 2000), generator=generator)
    logits = []
    for dtype in (torch.float32, torch.bfloat16):
        model = case.masked_lm(**{DTYPE: dtype, "max_position_embeddings": 2002})
        with torch.no_grad():
            logits.append(model(input_ids=tokens).logits[:, 1500:].float())
    assert (logits[1] - logits[0]).abs().max() <= 0.05 * logits[0].abs().max()


def check_classification(case):
    model = case.load(
        AutoModelForSequenceClassification, num_labels=3, absent=("classifier.",)
    ).train()
    loaded = case.masked_lm().state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("esm."):
            assert torch.equal(value, loaded[name]), name
    labels = torch.arange(len(case.tokens)) % 3
    out = model(input_ids=case.tokens, attention_mask=case.real.long(), labels=labels)
    assert out.logits.shape == (len(case.tokens), 3)
    out.loss.backward()
    # Nothing reads these, and the bias of the keys cancels in the softmax.
    silent = ("contact_head", "position_ids", "self.key.bias")
    for name, parameter in model.named_parameters():
        if any(part in name for part in silent):
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def check_kinds_of_labels(case):
    if not case.own_code:
        return
    rows = len(case.tokens)
    for count, labels in (
        (1, torch.linspace(0, 1, rows)),
        (3, torch.eye(3)[torch.arange(rows) % 3]),
        (3, torch.arange(rows) % 3),
    ):
        model = case.load(
            AutoModelForSequenceClassification, num_labels=count, absent=("classifier.",)
        )
        assert model(input_ids=case.tokens, labels=labels).loss > 0


def check_masked_loss(case):
    model = case.masked_lm().train()
    labels = torch.where(case.tokens == MASK, 7, -100)

    def gradients():
        model.zero_grad()
        loss = model(input_ids=case.tokens, attention_mask=case.real.long(), labels=labels).loss
        loss.backward()
        return loss.item(), {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }

    logits = torch.tensor(case.expected["logits"])[case.tokens == MASK]
    expected = -torch.log_softmax(logits, -1)[:, 7].mean().item()
    loss, plain = gradients()
    assert abs(loss - expected) <= 1e-4 * expected
    assert all(torch.isfinite(x).all() for x in plain.values())
    if case.own_code:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        again, checkpointed = gradients()
        assert again == loss
        assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def check_embeddings_as_input(case):
    model = case.masked_lm()
    if not case.own_code or case.config["token_dropout"]:
        return
    with torch.no_grad():
        embedded = model.get_input_embeddings()(case.tokens)
        out = model(inputs_embeds=embedded, attention_mask=case.real.long())
    case.assert_close(out.logits, "logits")


def check_length_limit(case):
    if not case.own_code:
        return
    tokens = torch.full((1, case.config["max_position_embeddings"] - 1), 7)
    model = case.masked_lm()
    model(input_ids=tokens[:, 1:])
    refused = ""
    try:
        model(input_ids=tokens)
    except ValueError as error:
        refused = str(error)
    assert "the model was trained with at most" in refused


def check_saving(case):
    model = case.masked_lm()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = case.masked_lm(folder=folder)
        assert torch.equal(case.run(again).logits, case.run(model).logits)


def check_hub_code(case):
    """A stand-in for the hub's v2 code, which is the ESM of its day with a gated feed-forward."""
    esm = transformers.models.esm.modeling_esm
    # Later versions keep the frequencies elsewhere, and the hub's code has one kind of model.
    published = case.config.get("ffn_gated") and "head_dim" not in case.config
    if not published or not hasattr(esm, "RotaryEmbedding"):
        return

    class Intermediate(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            columns = 2 * config.intermediate_size
            self.dense = torch.nn.Linear(config.hidden_size, columns, bias=config.add_bias_fnn)

        def forward(self, x):
            first, second = self.dense(x).chunk(2, -1)
            return torch.nn.functional.silu(first) * second

    class Output(esm.EsmOutput):
        def __init__(self, config):
            super().__init__(config)
            size = (config.intermediate_size, config.hidden_size)
            self.dense = torch.nn.Linear(*size, bias=config.add_bias_fnn)

    stock = esm.EsmIntermediate, esm.EsmOutput
    esm.EsmIntermediate, esm.EsmOutput = Intermediate, Output
    try:
        model, info = esm.EsmForMaskedLM.from_pretrained(case.export, output_loading_info=True)
    finally:
        esm.EsmIntermediate, esm.EsmOutput = stock
    # From 4.52 on, stock ESM has no table of positions that it does not use; the hub's code has.
    unused = {"esm.embeddings.position_embeddings.weight"}
    assert set(info.pop("unexpected_keys")) <= unused
    assert not any(info.values()), info
    case.assert_close(case.run(model.eval()).logits, "logits")


def check_tokenizer(case):
    options = {"trust_remote_code": True} if case.own_code else {}
    tokenizer = AutoTokenizer.from_pretrained(case.export, **options)
    texts, expected = zip(*case.strings, strict=True)
    for text, ids in case.strings:
        assert tokenizer(text)["input_ids"] == ids, text
    assert tokenizer.model_max_length == case.config["max_position_embeddings"] - 2
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (PAD, MASK)
    assert tokenizer.padding_side == "right"
    batch = tokenizer(list(texts), padding=True, return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"}
    for row, ids in enumerate(expected):
        assert batch["input_ids"][row, : len(ids)].tolist() == ids
        assert batch["attention_mask"][row].sum() == len(ids)
    short = tokenizer(max(texts, key=len), truncation=True, max_length=4)["input_ids"]
    assert len(short) == 4
    k = len(tokenizer.convert_ids_to_tokens(10))
    parts = ["A" * k, "<mask>", "C" * k]
    ids = tokenizer("".join(parts))["input_ids"]
    assert ids == [tokenizer.cls_token_id, *tokenizer.convert_tokens_to_ids(parts)]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "A" * k + "C" * k


CHECKS = [
    check_outputs,
    check_padding,
    check_base_model,
    check_half_precision,
    check_angles_are_exact_far_away,
    check_classification,
    check_kinds_of_labels,
    check_masked_loss,
    check_embeddings_as_input,
    check_length_limit,
    check_saving,
    check_hub_code,
    check_tokenizer,
]


def main(folders):
    failed = 0
    for folder in folders:
        case = Case(folder)
        for check in CHECKS:
            try:
                check(case)
            except Exception:
                failed += 1
                traceback.print_exc()
                print(f"FAILED {folder} {check.__name__}")
    print(f"transformers {transformers.__version__}, torch {torch.__version__}: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
