"""One encoder before one task: the start, the batches, the compiled step, the evaluation."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float

from nt_jax import optim, sharding
from nt_jax.config import Experiment, OptimConfig
from nt_jax.evaluation import metrics
from nt_jax.evaluation.embed import bucket
from nt_jax.evaluation.finetune import examples, methods, objectives
from nt_jax.evaluation.finetune import head as heads
from nt_jax.evaluation.finetune.head import HEAD, Head
from nt_jax.evaluation.finetune.methods import Method
from nt_jax.evaluation.finetune.settings import Settings
from nt_jax.evaluation.finetune.step import close_interval, fresh_state, make_step
from nt_jax.evaluation.tasks import Kind, Split
from nt_jax.model.factory import Model, Params
from nt_jax.step import TrainState
from nt_jax.tokenizers import KmerTokenizer

MOST_STEPS_BETWEEN = 200
"""Steps between evaluations; one ends every epoch, where that comes earlier."""
WARMUP_SHARE = 0.05
HEAD_RATE = 1e-3
"""Peak rate of the head where the method's is higher: it starts at its optimum."""
CLIP = 1.0
"""Limit of the global gradient norm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """A checkpoint under a method, on a mesh."""

    experiment: Experiment
    """Of the checkpoint."""
    model: Model
    """With the method's interceptor."""
    params: Params
    """Of the checkpoint."""
    method: Method
    mesh: Mesh
    settings: Settings

    @property
    def tokenizer(self) -> KmerTokenizer:
        """Bases -> tokens."""
        return self.experiment.tokenizer.make()

    @property
    def context(self) -> int:
        """Longest sequence in tokens, `<cls>` included: as trained, not as allowed."""
        return min(self.experiment.model.max_positions, self.experiment.data.sequence_length)

    @property
    def frozen(self) -> Params:
        """Parameters that the method does not train."""
        trains = self.method.trains
        return hk.data_structures.filter(lambda m, n, _: not trains(m, n), self.params)

    def start(self) -> Params:
        """What the method trains, as it is before the first step."""
        key = jax.random.key(self.settings.seed)
        added = methods.initial(self.method, self.experiment, key)
        trains = self.method.trains
        own = hk.data_structures.filter(lambda m, n, _: trains(m, n), self.params)
        return hk.data_structures.merge(own, added)

    def place(self, rows: np.ndarray) -> jax.Array:
        """An array whose rows are spread over the mesh."""
        return jax.device_put(rows, NamedSharding(self.mesh, sharding.BATCH))

    def embed(self, trained: Params, ids: examples.Ids) -> Float[np.ndarray, "N D"]:
        """Pooled embeddings of token ids, with `trained` in its place."""
        return examples.embed_ids(
            self.model,
            hk.data_structures.merge(self.params, trained),
            ids,
            self.settings.layer,
            pooling=self.settings.pooling,
            context=self.context,
            batch=self.settings.batch,
            pad_id=self.tokenizer.pad_id,
            place=self.place,
        )

    def predict(self, trained: Params, head: Head, sequences: Sequence[str]) -> np.ndarray:
        """Outputs [N, C] of the head, in the units of the labels."""
        features = self.embed(trained, examples.encode(self.tokenizer, sequences, self.context))
        return heads.natural_outputs(head, features)


class Problem:
    """Training and validation sequences of one task before one encoder."""

    def __init__(self, encoder: Encoder, kind: Kind, width: int, train: Split, validation: Split):
        settings, tokenizer = encoder.settings, encoder.tokenizer
        self.encoder, self._width = encoder, width
        self._objective = objectives.OBJECTIVES[kind]
        self._scorer = metrics.SCORERS[kind]
        self.metric = self._scorer.names[0]
        """Score that is shown beside the validation loss."""
        self._train = examples.encode(tokenizer, train.sequences, encoder.context)
        self._validation = examples.encode(tokenizer, validation.sequences, encoder.context)
        self._train_targets = self._objective.targets(train.labels)
        self._validation_targets = self._objective.targets(validation.labels)
        self._validation_labels = validation.labels
        # One compiled length.
        self._length = bucket(max(ids.size for ids in self._train), encoder.context)

        epoch = len(self._train) / settings.batch
        self.steps = 0 if encoder.method.name == "head" else math.ceil(settings.epochs * epoch)
        """Most steps."""
        self.every = min(math.ceil(epoch), MOST_STEPS_BETWEEN)
        """Steps between evaluations."""
        self._optimizer = optim.optimizer(
            OptimConfig(
                schedule="cosine",
                init_lr=0.0,
                peak_lr=settings.learning_rate,
                warmup_steps=round(WARMUP_SHARE * self.steps),
                clip=CLIP,
            ),
            max(self.steps, 1),
        )
        step = make_step(
            encoder.model,
            self._objective,
            self._optimizer,
            layer=settings.layer,
            pooling=settings.pooling,
            pad_id=tokenizer.pad_id,
            head_share=HEAD_RATE / max(settings.learning_rate, HEAD_RATE),
        )
        self._frozen = encoder.frozen
        abstract = jax.eval_shape(self._fresh, jax.eval_shape(encoder.start), self._any_head())
        self._placed = sharding.state_sharding(abstract, encoder.mesh)
        self.abstract = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, self._placed
        )
        """Shapes and shardings of the state."""
        compiled = functools.partial(jax.jit, donate_argnums=0, out_shardings=self._placed)
        self._advance, self.close_interval = compiled(step), compiled(close_interval)

    def start(self) -> TrainState:
        """State before the first step, its head fitted to the frozen embeddings."""
        start = self.encoder.start()
        train, validation = (
            heads.Examples(self.encoder.embed(start, ids), targets)
            for ids, targets in (
                (self._train, self._train_targets),
                (self._validation, self._validation_targets),
            )
        )
        head = heads.fit_head(train, validation, self._width, self._objective)
        return jax.jit(self._fresh, out_shardings=self._placed)(start, head)

    def advance(self, state: TrainState) -> TrainState:
        """One step; takes the memory of `state` over."""
        rows = examples.rows_of_step(
            len(self._train),
            self.encoder.settings.batch,
            self.encoder.settings.seed,
            int(state.step),
        )
        ids = [self._train[row] for row in rows]
        tokens = examples.padded(ids, self._length, self.encoder.tokenizer.pad_id)
        targets = heads.on_loss_scale(
            jax.device_get(state.opt_state.constants[HEAD]), self._train_targets[rows]
        )
        place = self.encoder.place
        return self._advance(state, self._frozen, place(tokens), place(targets))

    def evaluate(self, state: TrainState) -> tuple[float, float]:
        """Mean loss and score of the validation sequences."""
        trained, head = split_head(state.params, state.opt_state.constants)
        features = self.encoder.embed(trained, self._validation)
        found = heads.Examples(features, self._validation_targets)
        loss = heads.mean_loss(head, found, self._objective)
        predicted = self._objective.predict(heads.natural_outputs(head, features))
        return loss, self._scorer.scores(self._validation_labels, predicted)[self.metric]

    def epoch(self, step: int) -> float:
        """Passes over the training sequences after `step` steps."""
        return step * self.encoder.settings.batch / len(self._train)

    def _fresh(self, encoder: Params, head: Head) -> TrainState:
        return fresh_state(self._optimizer, encoder, head)

    def _any_head(self) -> Any:
        depth = self.encoder.experiment.model.embed_dim
        shapes = {
            "w": (depth, self._width),
            "b": (self._width,),
            "mean": (depth,),
            "scale": (depth,),
            "target_mean": (self._width,),
            "target_scale": (self._width,),
            "strength": (),
        }
        return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def split_head(trained: Params, constants: Params) -> tuple[Params, Head]:
    """(what is trained of the encoder, the whole head on the host)."""
    encoder = {module: arrays for module, arrays in trained.items() if module != HEAD}
    return encoder, jax.device_get({**constants[HEAD], **trained[HEAD]})
