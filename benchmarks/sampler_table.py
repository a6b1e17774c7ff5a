r"""Every sampler with one trained network: the Fréchet distance to real images against the network evaluations.

    python benchmarks/sampler_table.py --config=configs/digits_vp.py --num_images=500
    python benchmarks/sampler_table.py --config=configs/fashion_mnist_vp.py --num_images=1000 \
        --features=runs/features.npz

Samples the run of the config with the driver of `--mode=sample` into WORKDIR/sampler_table/ and prints a table in
Markdown; a second call reuses the samples. The Fréchet distance between samples and real images is taken in pixel
space, or in the features of a classifier (`feature_classifier.py`). It is divided by the distance between two sets of
as many real images. The table has mean, least and largest of ten random choices of the real images. A ratio of 1
matches real images.
"""

import argparse
from pathlib import Path

import numpy as np
from feature_classifier import features_of
from real_images import frechet_ratios, real_images, sample_set

from score_sde_jax import settings
from score_sde_jax.errors import UserError
from score_sde_jax.runs.numbered import NFE
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.settings import Settings, with_values

GAUSSIAN, NO_CORRECTOR = ["sampler.prior=gaussian"], ["sampler.corrector.name=none"]


def uniform(num_steps: int) -> list[str]:
    """Return the overrides for evenly spaced times."""
    return ["sampler.times.name=uniform", f"sampler.times.num_steps={num_steps}"]


def predictor(name: str, num_steps: int, *options: str) -> list[str]:
    """Return the overrides for a predictor without a corrector."""
    assignments = [f"sampler.predictor.{option}" for option in (f"name={name}", *options)]
    return [*assignments, *uniform(num_steps), *NO_CORRECTOR, *GAUSSIAN]


def annealed_langevin(num_levels: int, num_steps: int, step_size: float) -> list[str]:
    """Return the overrides for annealed Langevin dynamics at geometric noise levels."""
    return [
        "sampler.times.name=log_snr",
        f"sampler.times.num_steps={num_levels}",
        "sampler.predictor.name=none",
        "sampler.corrector.name=annealed_langevin",
        f"sampler.corrector.num_steps={num_steps}",
        f"sampler.corrector.step_size={step_size}",
        *GAUSSIAN,
    ]


def predictor_corrector(num_steps: int) -> list[str]:
    """Return the overrides for the sampler of NCSN++, with one step of predictor and corrector at each time."""
    return [
        *predictor("reverse_diffusion", num_steps),
        "sampler.corrector.name=langevin",
        "sampler.corrector.snr=0.16",
    ]


ROWS = {
    "annealed Langevin": annealed_langevin(100, 1, 0.5),
    "predictor-corrector": predictor_corrector(50),
    "reverse diffusion": predictor("reverse_diffusion", 100),
    "ancestral": predictor("ancestral", 100),
    "Euler-Maruyama": predictor("euler_maruyama", 100),
    "DDIM": predictor("ddim", 100),
    "DDIM, 20 steps": predictor("ddim", 20),
    "Heun": predictor("heun", 50),
    "Heun, 10 steps": predictor("heun", 10),
    "adaptive ODE": predictor("dormand_prince", 1, "rtol=1e-3", "atol=1e-3"),
}


def main() -> None:
    """Generate the missing samples and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", help="of the run (that of the config)")
    parser.add_argument("--num_images", type=int, default=500)
    parser.add_argument("--features", help="npz of feature_classifier.py (the pixels)")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    arguments, overrides = parser.parse_known_args()
    workdir = Path(arguments.workdir or f"runs/{settings.run_name(arguments.config)}")
    assignments = [override.removeprefix("--config.") for override in overrides]
    print("| sampler | NFE | distance over that of real images | least and largest of ten |\n|---|---|---|---|")
    try:
        for name in arguments.rows:
            config = settings.from_config(settings.load(arguments.config), [*assignments, *ROWS[name]])
            samples, evaluations = sampled(config, workdir, name, arguments.num_images)
            if arguments.features:
                ratios = frechet_ratios(
                    features_of(arguments.features, samples), features_of(arguments.features, real_images(config))
                )
            else:
                ratios = frechet_ratios(pixels(samples), pixels(real_images(config)))
            print(
                f"| {name} | {evaluations:g} | {np.mean(ratios):.2f} | {min(ratios):.2f}, {max(ratios):.2f} |",
                flush=True,
            )
    except UserError as error:
        parser.error(str(error))


def sampled(config: Settings, workdir: Path, name: str, num_images: int) -> tuple[np.ndarray, float]:
    """Return uint8 images of one sampler, and their mean NFE."""
    batch_size = min(num_images, config.sampler.batch_size)
    config = with_values(config, {"sampler.num_images": num_images, "sampler.batch_size": batch_size})
    output = workdir / "sampler_table" / name.replace(" ", "_").replace(",", "")
    samples = sample_set(sample(config, workdir, SampleRequest(output=output), lambda line: None))
    return samples.column(samples.key)[:num_images], samples.record[NFE]


def pixels(images: np.ndarray) -> np.ndarray:
    """Return images as (num, dim) with values from 0 to 1."""
    return images.reshape(len(images), -1) / 255.0


if __name__ == "__main__":
    main()
