"""Data loading."""

from typing import Self

from pydantic import PositiveInt, model_validator

from raystack.config.section import ConflictError, NonNegativeInt, Section


class Data(Section):
    """Data loading."""

    loaders: NonNegativeInt = 0
    """Loader processes per worker. 0 reads samples in the training process, which suits data in memory."""

    prefetch: PositiveInt = 2
    """Batches that each loader process prefetches; not used without loader processes."""

    shuffle: bool = True
    """Shuffle the samples of each epoch by the seed; false keeps the dataset's own order.
    Data that can only be read in order (a stream, Ray Data) needs false.
    """

    drop_last: bool = False
    """Leave out the run's last step if it would have fewer samples than the global batch, for models that
    need full batches. Positions continue over epochs, so no other step is smaller.
    """

    bucket: PositiveInt | None = None
    """Batch samples of similar length to reduce padding: within each window of this many global batches, the
    samples are sorted by the dataset's `lengths` and split into global batches, which are visited in random
    order. Each epoch still visits each sample once. 50 to 100 removes most of the padding; a window
    as long as the epoch makes every batch alike. Not set: no bucketing.
    """

    weighted: bool = False
    """Draw the samples by the dataset's `weights`, with replacement: an epoch is as many draws as there are
    samples. Each draw is a function of the seed and its position. False: each sample comes once per epoch.
    """

    @model_validator(mode="after")
    def _weights_draw(self) -> Self:
        if self.weighted and not self.shuffle:
            raise ConflictError(
                "weighted draws the samples, and shuffle=false keeps their order", "weighted", "shuffle"
            )
        return self

    @model_validator(mode="after")
    def _bucket_reorders(self) -> Self:
        if self.bucket is not None and not self.shuffle:
            raise ConflictError(
                "bucket changes the order of the samples, and shuffle=false keeps it", "bucket", "shuffle"
            )
        return self
