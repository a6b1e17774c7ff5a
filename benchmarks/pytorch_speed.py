"""Speed of the PyTorch originals of NCSN and NCSNv2 on CIFAR-10, to be read beside that of `speed.py`.

    git clone https://github.com/ermongroup/ncsn PEER         (or ncsnv2)
    python benchmarks/pytorch_speed.py --repository=PEER --network=ncsn --batch_size=8

Needs PyTorch, in an environment of its own. Times the repository's network as its runner uses it: the forward pass
without gradients, and a training step of its loss, backward pass and Adam.
"""

import argparse
import importlib
import statistics
import sys
import time
import types
from collections.abc import Callable

import torch

DATA = types.SimpleNamespace(
    logit_transform=False, rescaled=False, channels=3, image_size=32, dataset="CIFAR10", random_flip=False
)


def main() -> None:
    """Print the best and the median images per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, help="a clone of ermongroup/ncsn or ermongroup/ncsnv2")
    parser.add_argument("--network", choices=("ncsn", "ncsnv2"), required=True)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=6)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    sys.path.insert(0, arguments.repository)
    network, sigmas, learning_rate = NETWORKS[arguments.network]()
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    x0 = torch.rand(arguments.batch_size, 3, 32, 32)
    parameters = sum(leaf.numel() for leaf in network.parameters())
    print(f"{parameters} parameters, torch {torch.__version__}, {torch.get_num_threads()} threads")

    def forward() -> None:
        with torch.no_grad():
            network(x0, torch.randint(0, len(sigmas), (len(x0),)))

    def train() -> None:
        labels = torch.randint(0, len(sigmas), (len(x0),))
        sigma = sigmas[labels].view(-1, 1, 1, 1)
        noise = sigma * torch.randn_like(x0)
        error = network(x0 + noise, labels) + noise / sigma**2
        loss = (0.5 * (sigma * error).square().flatten(1).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for name, function in (("forward", forward), ("training", train)):
        best, median = images_per_second(function, len(x0), arguments.repeats)
        print(f"{name} images/s: best {best:.3g}, median {median:.3g}")


def ncsn() -> tuple[torch.nn.Module, torch.Tensor, float]:
    """Network, noise levels and learning rate of NCSN (arXiv 1907.05600)."""
    module = importlib.import_module("models.cond_refinenet_dilated")
    model = types.SimpleNamespace(ngf=128, num_classes=10)
    config = types.SimpleNamespace(data=DATA, model=model, device="cpu")
    return module.CondRefineNetDilated(config), torch.logspace(0, -2, 10), 1e-3


def ncsnv2() -> tuple[torch.nn.Module, torch.Tensor, float]:
    """Network, noise levels and learning rate of NCSNv2 (arXiv 2006.09011)."""
    module = importlib.import_module("models.ncsnv2")
    model = types.SimpleNamespace(
        ngf=128,
        num_classes=232,
        sigma_begin=50,
        sigma_end=0.01,
        sigma_dist="geometric",
        normalization="InstanceNorm++",
        nonlinearity="elu",
        spec_norm=False,
    )
    network = module.NCSNv2(types.SimpleNamespace(data=DATA, model=model, device="cpu"))
    return network, network.sigmas, 1e-4


NETWORKS = {"ncsn": ncsn, "ncsnv2": ncsnv2}


def images_per_second(function: Callable[[], None], images: int, repeats: int) -> tuple[float, float]:
    """Best and median speed of a call, after one to warm up."""
    function()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return images / min(seconds), images / statistics.median(seconds)


if __name__ == "__main__":
    main()
