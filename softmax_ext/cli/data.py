"""``softmax-ext data`` and ``info``: what is on this machine."""

from __future__ import annotations

import argparse
import os


def data(args: argparse.Namespace) -> int:
    from .. import datasets

    if args.action == "describe":
        print(datasets.describe_fashion_mnist(args.root))
        return 0
    if args.action != "find":
        datasets.load_fashion_mnist(args.root, download=args.action == "download")
        print("Fashion-MNIST is whole: each file has the published SHA-256")
    paths = datasets.find_fashion_mnist(args.root)
    for name, path in paths.items():
        print(f"{name:<24}{path or 'not found'}")
    if None in paths.values():
        raise FileNotFoundError("Fashion-MNIST is not all here; get it: softmax-ext data download")
    return 0


def info(args: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    from .. import datasets, show_config

    show_config()
    for package, use in (("matplotlib", "pictures"), ("tqdm", "progress bars")):
        try:
            installed = version(package)
        except PackageNotFoundError:
            installed = 'not installed: pip install "softmax-ext[cli]"'
        print(f"{package:<16}{installed} ({use})")
    places = set(datasets.find_fashion_mnist().values())
    folders = {os.path.dirname(place) for place in places if place}
    where = ", ".join(sorted(folders)) if None not in places else "to be downloaded"
    print(f"{'Fashion-MNIST':<16}{where}")
    return 0
