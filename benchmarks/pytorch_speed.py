"""Speed of the PyTorch originals of NCSN, NCSNv2 and score-SDE on CIFAR-10, to compare with that of `speed.py`.

    git clone https://github.com/ermongroup/ncsn PEER         (or ncsnv2, or yang-song/score_sde_pytorch)
    python benchmarks/pytorch_speed.py --repository=PEER --network=ncsn --batch_size=8

Needs PyTorch, in an environment of its own, and for score-SDE ml_collections. Times the repository's network as its
runner uses it: the forward pass without gradients, and a training step of its loss, backward pass and Adam, for
score-SDE with gradient clipping and the moving average too. Prints images per second and CPU seconds per image; other
processes change the CPU time little.

On a GPU, `--device=cuda --precision=bfloat16 --channels_last --compile` times automatic mixed precision and a network
compiled by `torch.compile`. `accelerator.py` runs these variants. NCSN++ resamples by the CUDA extension of score-SDE
if nvcc and ninja are installed, but not with --compile, since the extension would interrupt the compiled program.
Otherwise it resamples by score-SDE's own function for CPUs.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


def flags() -> argparse.Namespace:
    """Return the flags of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, help="a clone of the original")
    parser.add_argument("--network", choices=("ncsn", "ncsnv2", *SCORE_SDE), required=True)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--precision",
        choices=("float32", "tf32", "bfloat16"),
        default="float32",
        help="of products and convolutions; bfloat16 is automatic mixed precision",
    )
    parser.add_argument("--compile", action="store_true", help="compile the network by torch.compile")
    parser.add_argument("--channels_last", action="store_true", help="keep images and weights in the layout NHWC")
    parser.add_argument("--json", action="store_true", help="print all figures in one line of JSON at the end")
    return parser.parse_args()


def main() -> None:
    """Print the best and the median images per second, and the least CPU time."""
    arguments = flags()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest" if arguments.precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = arguments.precision != "float32"
    torch.backends.cudnn.benchmark = True
    sys.path.insert(0, arguments.repository)
    device = torch.device(arguments.device)
    extension = device.type == "cuda" and not arguments.compile and can_build()
    if arguments.network in SCORE_SDE:
        original = score_sde(arguments.network, device, extension)
    else:
        original = ncsn(arguments.network, device)
    x0 = torch.rand(arguments.batch_size, 3, 32, 32, device=device)
    if arguments.channels_last:
        original.network.to(memory_format=torch.channels_last)
        x0 = x0.contiguous(memory_format=torch.channels_last)
    if arguments.compile:
        original.network.compile()
    parameters = sum(leaf.numel() for leaf in original.network.parameters() if leaf.requires_grad)
    print(f"{parameters} parameters, torch {torch.__version__}, {torch.get_num_threads()} threads")
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16")

    def forward() -> None:
        with torch.no_grad(), mixed:
            original.forward(x0)

    def train() -> None:
        original.network.zero_grad()
        with mixed:
            loss = original.loss(x0)
        loss.backward()
        original.update()

    figures: dict[str, Any] = {"torch": torch.__version__, "parameters": parameters, "cuda_extension": extension}
    for name in ("network", "batch_size", "precision", "compile", "channels_last"):
        figures[name] = getattr(arguments, name)
    figures["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    for name, function in (("forward", forward), ("training", train)):
        original.network.train(name == "training")
        speed = images_per_second(function, len(x0), arguments.repeats, device)
        best, median = f"best {speed.best:.3g}", f"median {speed.median:.3g}"
        print(f"{name} images/s: {best}, {median}; CPU seconds an image: {speed.cpu:.3g}", flush=True)
        figures |= {f"{name}_{figure}": value for figure, value in speed._asdict().items()}
        if device.type == "cuda":
            figures[f"{name}_peak_bytes"] = torch.cuda.max_memory_allocated(device)
    if arguments.json:
        print(json.dumps(figures))


def can_build() -> bool:
    """Return whether CUDA extensions of PyTorch can be compiled here."""
    home = cpp_extension.CUDA_HOME
    return home is not None and Path(home, "bin", "nvcc").exists() and cpp_extension.is_ninja_available()


def ncsn(name: str, device: torch.device) -> Original:
    """Return NCSN (arXiv 1907.05600) or NCSNv2 (arXiv 2006.09011)."""
    network, sigmas, learning_rate = {"ncsn": ncsn_network, "ncsnv2": ncsnv2_network}[name]()
    network, sigmas = network.to(device), sigmas.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)

    def labels(x0: torch.Tensor) -> torch.Tensor:
        return torch.randint(0, len(sigmas), (len(x0),), device=device)

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


def score_sde(name: str, device: torch.device, extension: bool) -> Original:
    """Return DDPM, DDPM++ or NCSN++ (arXiv 2011.13456) with the repository's config; the loss is written here.

    Args:
        name: key of SCORE_SDE.
        device: device of the network.
        extension: whether to compile the repository's CUDA extension; without it the repository's own function for CPUs
            resamples on every device.
    """
    if not extension:
        cpp_extension.load = lambda *args, **keywords: None
        resampling = importlib.import_module("models.up_or_down_sampling")
        module = sys.modules["op.upfirdn2d"]  # `op.upfirdn2d` itself is the function

        def upfirdn2d(x: torch.Tensor, kernel: torch.Tensor, up: int = 1, down: int = 1, pad: Any = (0, 0)) -> Any:
            return module.upfirdn2d_native(x, kernel, up, up, down, down, *pad, *pad)

        resampling.upfirdn2d = upfirdn2d
    config = importlib.import_module(f"configs.{SCORE_SDE[name]}").get_config()
    importlib.import_module(f"models.{config.model.name}")
    network = importlib.import_module("models.utils").get_model(config.model.name)(config).to(device)
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
        sigma, condition = noise_level(1e-5 + (1 - 1e-5) * torch.rand(len(x0), device=device))
        noise = torch.randn_like(x0)
        x_t = (x0 if ve else torch.sqrt(1 - sigma**2) * (2 * x0 - 1)) + sigma * noise
        output = network(x_t, condition)
        error = sigma * output + noise if ve else output - noise
        return (0.5 * error.square().flatten(1).sum(1)).mean()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(trained, max_norm=config.optim.grad_clip)
        optimizer.step()
        average.update(trained)

    def forward(x0: torch.Tensor) -> torch.Tensor:
        return network(x0, noise_level(torch.rand(len(x0), device=device))[1])

    return Original(network, forward, loss, update)


class Speed(NamedTuple):
    """Best and median images per second of a call, its least CPU time per image, and the seconds of the first call."""

    best: float
    median: float
    cpu: float
    first_call_s: float


def images_per_second(function: Callable[[], None], images: int, repeats: int, device: torch.device) -> Speed:
    """Return the speed of a call, after calls to warm up."""
    gpu = device.type == "cuda"

    def call() -> None:
        function()
        if gpu:
            torch.cuda.synchronize(device)

    began = time.perf_counter()
    call()
    first = time.perf_counter() - began
    for _ in range(3 if gpu else 0):
        call()
    seconds, cpu = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    return Speed(images / min(seconds), images / statistics.median(seconds), min(cpu) / images, first)


if __name__ == "__main__":
    main()
