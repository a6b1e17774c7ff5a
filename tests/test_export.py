"""Every config's training step and sampler lower for GPUs and TPUs, none of which is needed for that."""

import jax
import jax.numpy as jnp
import pytest
from experiments import NAMES, finished

from score_sde_jax.data import dataset_spec
from score_sde_jax.devices.machine import tracing_for
from score_sde_jax.devices.parallel import Jit
from score_sde_jax.runs import build

GIVEN = ["sde.sigma_max=50.0", "loss.times.num_levels=3", "sampler.corrector.step_size=0.1"]  # where data decide
QUICK = (
    "digits",
    "digits_classifier",
    "fashion_mnist",
    "toy",
)  # the gradient of a RefineNet takes half a minute to trace


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_lowers_for_cuda_and_tpu(name):
    config = finished(name, *(GIVEN if name == "image_folder" else []), variant="")
    section = config.data
    shape = dataset_spec(section.name).shape(section.get("image_size"), section.get("channels"))
    experiment, parallel = build.experiment(config, shape), Jit()
    state = parallel.abstract(experiment.init, jax.random.key(0))
    stored = jnp.float32 if len(shape) == 1 else jnp.uint8
    key, flags = jax.random.key(0), parallel.flags(False)
    batches = {
        "image": jax.ShapeDtypeStruct((1, 4, *shape), stored, sharding=parallel.batches),
        "label": jax.ShapeDtypeStruct((1, 4), jnp.int32, sharding=parallel.batches),
    }
    indices = jax.ShapeDtypeStruct((4,), jnp.int32, sharding=parallel.batched)
    lowered = {
        "step": (parallel.train(experiment.steps, state), (state, batches, key, flags)),
    }
    if experiment.sampler:
        lowered["sampler"] = (parallel.per_example(experiment.sample), (state.params, indices, key, {}))
    for what, (function, arguments) in lowered.items():
        with tracing_for("gpu"):  # convolutions and norms are those of accelerators
            exported = jax.export.export(function, platforms=["cuda", "tpu"])(*arguments)
        assert exported.platforms == ("cuda", "tpu"), what
        shapes = [leaf.shape for leaf in exported.out_avals]
        assert ((4, *shape) in shapes) == (what == "sampler")
        assert "stablehlo" in exported.mlir_module()
