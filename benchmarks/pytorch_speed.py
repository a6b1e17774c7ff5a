"""Speed of the PyTorch originals of NCSN, NCSNv2 and score-SDE on CIFAR-10, to compare with that of `speed.py`.

    git clone https://github.com/ermongroup/ncsn PEER         (or ncsnv2, or yang-song/score_sde_pytorch)
    python benchmarks/pytorch_speed.py --repository=PEER --network=ncsn --batch_size=8

Needs PyTorch, in an environment of its own, and for score-SDE ml_collections. Times the repository's network as its
runner uses it: the forward pass without gradients, and a training step of its loss, backward pass and Adam, for
score-SDE with gradient clipping and the moving average too. Prints images per second and CPU seconds per image; other
processes change the CPU time little.
"""

import argparse
import importlib
import statistics
import sys
import time
import types
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils import cpp_extension

DATA = types.SimpleNamespace(
    logit_transform=False, rescaled=False, channels=3, image_size=32, dataset="CIFAR10", random_flip=False
)
SCORE_SDE = {
    "ncsnpp": "ve.cifar10_ncsnpp_continuous",
    "ddpmpp": "vp.cifar10_ddpmpp_continuous",
    "ddpm": "vp.ddpm.cifar10_continuous",
}


class Original(NamedTuple):
    """A network with its forward pass, its loss of a batch, and its update after the gradient."""

    network: torch.nn.Module
    forward: Callable[[torch.Tensor], torch.Tensor]
    loss: Callable[[torch.Tensor], torch.Tensor]
    update: Callable[[], None]


def main() -> None:
    """Print the best and the median images per second, and the least CPU time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, help="a clone of the original")
    parser.add_argument("--network", choices=("ncsn", "ncsnv2", *SCORE_SDE), required=True)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=6)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    sys.path.insert(0, arguments.repository)
    original = score_sde(arguments.network) if arguments.network in SCORE_SDE else ncsn(arguments.network)
    x0 = torch.rand(arguments.batch_size, 3, 32, 32)
    parameters = sum(leaf.numel() for leaf in original.network.parameters() if leaf.requires_grad)
    print(f"{parameters} parameters, torch {torch.__version__}, {torch.get_num_threads()} threads")

    def forward() -> None:
        with torch.no_grad():
            original.forward(x0)

    def train() -> None:
        original.network.zero_grad()
        original.loss(x0).backward()
        original.update()

    for name, function in (("forward", forward), ("training", train)):
        original.network.train(name == "training")
        best, median, cpu = images_per_second(function, len(x0), arguments.repeats)
        print(f"{name} images/s: best {best:.3g}, median {median:.3g}; CPU seconds an image: {cpu:.3g}", flush=True)


def ncsn(name: str) -> Original:
    """Return NCSN (arXiv 1907.05600) or NCSNv2 (arXiv 2006.09011)."""
    network, sigmas, learning_rate = {"ncsn": ncsn_network, "ncsnv2": ncsnv2_network}[name]()
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)

    def labels(x0: torch.Tensor) -> torch.Tensor:
        return torch.randint(0, len(sigmas), (len(x0),))

    def loss(x0: torch.Tensor) -> torch.Tensor:
        levels = labels(x0)
        sigma = sigmas[levels].view(-1, 1, 1, 1)
        noise = sigma * torch.randn_like(x0)
        error = network(x0 + noise, levels) + noise / sigma**2
        return (0.5 * (sigma * error).square().flatten(1).sum(1)).mean()

    return Original(network, lambda x0: network(x0, labels(x0)), loss, lambda: optimizer.step())


def ncsn_network() -> tuple[torch.nn.Module, torch.Tensor, float]:
    """Return network, noise levels and learning rate of NCSN."""
    module = importlib.import_module("models.cond_refinenet_dilated")
    model = types.SimpleNamespace(ngf=128, num_classes=10)
    config = types.SimpleNamespace(data=DATA, model=model, device="cpu")
    return module.CondRefineNetDilated(config), torch.logspace(0, -2, 10), 1e-3


def ncsnv2_network() -> tuple[torch.nn.Module, torch.Tensor, float]:
    """Return network, noise levels and learning rate of NCSNv2."""
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


def score_sde(name: str) -> Original:
    """Return DDPM, DDPM++ or NCSN++ (arXiv 2011.13456) with the repository's config; the loss is written here."""
    cpp_extension.load = lambda *args, **keywords: None  # on CPUs the repository uses a function without CUDA
    config = importlib.import_module(f"configs.{SCORE_SDE[name]}").get_config()
    importlib.import_module(f"models.{config.model.name}")
    network = importlib.import_module("models.utils").get_model(config.model.name)(config)
    trained = [leaf for leaf in network.parameters() if leaf.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.optim.lr)
    average = importlib.import_module("models.ema").ExponentialMovingAverage(trained, decay=config.model.ema_rate)
    ve = config.training.sde == "vesde"

    def noise_level(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sigma and the noise condition of the network."""
        if ve:
            sigma = config.model.sigma_min * (config.model.sigma_max / config.model.sigma_min) ** t
            return sigma.view(-1, 1, 1, 1), sigma
        log_alpha = -0.25 * t**2 * (config.model.beta_max - config.model.beta_min) - 0.5 * t * config.model.beta_min
        return torch.sqrt(1 - torch.exp(2 * log_alpha)).view(-1, 1, 1, 1), 999 * t

    def loss(x0: torch.Tensor) -> torch.Tensor:
        sigma, condition = noise_level(1e-5 + (1 - 1e-5) * torch.rand(len(x0)))
        noise = torch.randn_like(x0)
        x_t = (x0 if ve else torch.sqrt(1 - sigma**2) * (2 * x0 - 1)) + sigma * noise
        output = network(x_t, condition)
        error = sigma * output + noise if ve else output - noise
        return (0.5 * error.square().flatten(1).sum(1)).mean()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(trained, max_norm=config.optim.grad_clip)
        optimizer.step()
        average.update(trained)

    return Original(network, lambda x0: network(x0, noise_level(torch.rand(len(x0)))[1]), loss, update)


def images_per_second(function: Callable[[], None], images: int, repeats: int) -> tuple[float, float, float]:
    """Return best and median speed of a call and its least CPU time per image, after one call to warm up."""
    function()
    seconds, cpu = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        function()
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    return images / min(seconds), images / statistics.median(seconds), min(cpu) / images


if __name__ == "__main__":
    main()
