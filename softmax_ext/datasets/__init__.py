"""Data to train on: Fashion-MNIST, IDX files, the lecture's 2 x 2 images, minibatches, blocks."""

from .blocks import Blocks
from .fashion_mnist import (
    FashionMNIST,
    describe_fashion_mnist,
    find_fashion_mnist,
    load_fashion_mnist,
)
from .idx import read_idx
from .minibatches import minibatches
from .two_by_two import TwoByTwo, make_two_by_two

__all__ = [
    "Blocks",
    "FashionMNIST",
    "TwoByTwo",
    "describe_fashion_mnist",
    "find_fashion_mnist",
    "load_fashion_mnist",
    "make_two_by_two",
    "minibatches",
    "read_idx",
]
