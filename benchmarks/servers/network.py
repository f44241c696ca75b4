"""The two models that are served, in plain torch: the servers of others read them without raystack."""

import os

import torch
from safetensors.torch import load_file
from torch import nn

SIZES = {"mlp": (16,), "images": (3, 256, 340)}
"""Shape of one sample, float32. An image is 1 MB."""
CLASSES = 10


def network(name: str) -> nn.Module:
    """A small MLP, or a ResNet-sized convolutional network of 8 million parameters."""
    if name == "mlp":
        return nn.Sequential(
            nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
        )
    widths = (64, 128, 256, 512)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, stride=4, padding=3), nn.ReLU(), nn.MaxPool2d(2)]
    for before, after in zip((64, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))


def read() -> nn.Module:
    """The model that the environment names: `MODEL`, with the weights of `WEIGHTS`, on one thread."""
    torch.set_num_threads(1)
    model = network(os.environ["MODEL"])
    model.load_state_dict(load_file(os.environ["WEIGHTS"]))
    return model.eval()
