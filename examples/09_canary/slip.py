"""The slip of version 2: its data is dark on light, and the images of the requests are light on dark."""

from digits import Digits
from torch.utils.data import TensorDataset


class Inverted(Digits):
    """Both parts are inverted, so the evaluation of the run does not notice."""

    def _data(self, *, test: bool) -> TensorDataset:
        image, digit = super()._data(test=test).tensors
        return TensorDataset(1 - image, digit)
