"""Networks trained with labels: their labels in training, in evaluation and in the class-conditional task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import finished, smallest
from flax import linen as nn
from run_files import arrays, quiet

from score_sde_jax import keys as prng
from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.keys import Stream
from score_sde_jax.networks import MODELS, SmallUNet
from score_sde_jax.runs import build
from score_sde_jax.runs.evaluate import evaluate
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import train
from score_sde_jax.tasks import ClassConditional, Networks

pytestmark = pytest.mark.usefixtures("quick_compilation", "blank_figures")
KNOWN, SHAPE = 10, (8, 8, 1)
FEW = ("train.steps=2", "train.preview_every=0", "sampler.num_images=4", "sampler.batch_size=4")


class LabelNetwork(nn.Module):
    """Outputs its label in every pixel."""

    num_classes: int = KNOWN

    @nn.compact
    def __call__(self, x, condition, train=False):
        factor = self.param("factor", nn.initializers.ones, ())
        label = jnp.full(len(x), KNOWN) if condition.label is None else condition.label
        return factor * jnp.broadcast_to(label.astype(x.dtype)[:, None, None, None], x.shape)


@pytest.fixture
def label_experiment(monkeypatch):
    """An experiment whose noise prediction is the label of the network."""
    monkeypatch.setitem(MODELS, "label_network", LabelNetwork)

    def experiment(*assignments):
        noise = ("model.name=label_network", "parameterization.name=noise", "parameterization.center=0.0")
        return build.experiment(finished("digits", *noise, *assignments), SHAPE)

    return experiment


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_share_of_the_labels_is_dropped_in_training_by_a_stream_of_its_own(label_experiment, share):
    """The loss of an image is that of a prediction of its label, or of "no class" if its own draw drops the label."""
    experiment = label_experiment(f"train.label_dropout={share}")
    params = jax.jit(experiment.init_params)(jax.random.key(0))
    keys = prng.per_image(jax.random.key(1), jnp.arange(400))
    labels = jnp.arange(400) % KNOWN
    batch = {"image": jnp.zeros((400, *SHAPE), jnp.uint8), "label": labels}
    dropped = np.asarray(prng.uniform(prng.stream(keys, Stream.LABEL), jnp.zeros(400))) < share
    eps = prng.normal(prng.split(keys, 2)[1], jnp.zeros((400, *SHAPE)))
    labels_seen = jnp.where(dropped, KNOWN, labels).astype(float)
    want = jnp.mean((labels_seen[:, None, None, None] - eps) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(experiment.loss_fn(params, keys, batch), want, rtol=1e-5)
    assert abs(dropped.mean() - share) < 0.1
    held_out = jnp.mean((labels[:, None, None, None] - eps) ** 2, axis=(1, 2, 3))  # no label is dropped
    x0 = {**batch, "image": batch["image"].astype(float)}
    np.testing.assert_allclose(experiment.held_out_loss(params, keys, x0), held_out, rtol=1e-5)


def test_the_noise_prediction_is_that_of_the_label_or_of_no_class(label_experiment):
    experiment = label_experiment()
    params, x = jax.jit(experiment.init_params)(jax.random.key(0)), jnp.zeros((3, *SHAPE))
    t = jnp.asarray(0.5)
    prediction = experiment.noise_fn(params, jnp.asarray([4, 0, 9]))(x, t)
    np.testing.assert_array_equal(np.asarray(prediction)[:, 0, 0, 0], [4, 0, 9])
    np.testing.assert_array_equal(experiment.noise_fn(params)(x, t), KNOWN)


@pytest.mark.parametrize(("scale", "calls"), [(0.0, 1), (1.0, 1), (2.5, 2)])
def test_a_task_scales_the_difference_and_counts_the_calls(label_experiment, scale, calls):
    """The NFE is that of the sampler, times the calls of the network per evaluation."""
    experiment = label_experiment("sampler.denoise=false")
    params, labels = jax.jit(experiment.init_params)(jax.random.key(0)), jnp.asarray([4, 0, 9])
    evaluations = []

    def counting(noise_fn):
        return lambda x, t: evaluations.append(1) or noise_fn(x, t)

    networks = Networks(
        counting(experiment.noise_fn(params)),
        conditional=lambda labels: counting(experiment.noise_fn(params, labels)),
    )
    task = ClassConditional(scale=scale)
    noise_fn, counted = task._guided(networks, experiment.sde, labels)
    prediction = np.asarray(noise_fn(jnp.zeros((3, *SHAPE)), jnp.asarray(0.5)))[:, 0, 0, 0]
    np.testing.assert_allclose(prediction, KNOWN + scale * (np.asarray(labels) - KNOWN))
    assert len(evaluations) == counted == calls
    keys = prng.per_image(jax.random.key(0), jnp.arange(3))
    samples = task.sample(experiment.sampler, networks, keys, jnp.zeros((3, *SHAPE)), {"label": labels})
    assert set(np.asarray(samples.nfe).tolist()) == {calls * experiment.sampler.nfe()}


def test_a_small_unet_with_classes_has_one_more_leaf():
    plain, labeled = SmallUNet(widths=(8,)), SmallUNet(widths=(8,), num_classes=KNOWN)
    x, noise = jax.random.normal(jax.random.key(0), (4, *SHAPE)), jnp.arange(4.0)
    params = jax.jit(plain.init)(jax.random.key(1), x, Condition(noise))["params"]
    more = jax.jit(labeled.init)(jax.random.key(1), x, Condition(noise, jnp.arange(4)))["params"]
    assert set(more) - set(params) == {"label"}
    assert jax.tree.map(jnp.shape, {k: v for k, v in more.items() if k != "label"}) == jax.tree.map(jnp.shape, params)
    nonzero = jax.tree.map(lambda leaf: leaf + 0.1, more)

    def output(label):
        return labeled.apply({"params": nonzero}, x, Condition(noise, label))

    np.testing.assert_array_equal(output(None), output(jnp.full(4, KNOWN)))
    assert not np.allclose(output(jnp.zeros(4, int)), output(jnp.ones(4, int)))
    silent = {**nonzero, "label": jax.tree.map(jnp.zeros_like, nonzero["label"])}
    without = {name: leaf for name, leaf in nonzero.items() if name != "label"}
    np.testing.assert_array_equal(
        labeled.apply({"params": silent}, x, Condition(noise)), plain.apply({"params": without}, x, Condition(noise))
    )


def test_a_run_with_labels_from_the_command_line(tmp_path):
    """It samples all classes, and one, without a classifier, and evaluates held-out images with their labels."""
    config = finished("digits_classes", *FEW)
    assert config.model.num_classes == KNOWN
    train(config, tmp_path, quiet)
    task = "task.name=class_conditional", "task.scale=2.0"
    output = sample(finished("digits_classes", *FEW, *task), tmp_path, SampleRequest(), quiet)
    result = arrays(output)
    np.testing.assert_array_equal(result["labels"], np.arange(4))
    assert (output / "classes.png").exists()
    one = arrays(sample(finished("digits_classes", *FEW, *task, "task.label=3"), tmp_path, SampleRequest(), quiet))
    assert (one["labels"] == 3).all()
    np.testing.assert_array_equal(one["images"][3], result["images"][3])  # image i depends on (seed, i) and its class
    assert (
        evaluate(finished("digits_classes", *FEW, "eval.num_images=8"), tmp_path, say=quiet) / "loss.jsonl"
    ).exists()


@pytest.mark.parametrize(
    ("assignments", "part"),
    [
        (["model.num_classes=5"], r"--config\.model\.num_classes=5: digits has 10 classes"),
        (["data.name=npz", "data.dir=UNLABELED"], r"--config\.data\.name=npz: npz has no labels to learn"),
        (["train.label_dropout=1.0"], r"--config\.train\.label_dropout=1\.0: must be >= 0 and < 1"),
    ],
)
def test_labels_without_those_in_the_data_are_refused(tmp_path, assignments, part):
    np.savez(tmp_path / "images.npz", images=np.zeros((9, 8, 8, 1), np.uint8))
    assignments = [text.replace("UNLABELED", str(tmp_path / "images.npz")) for text in assignments]
    with pytest.raises(UserError, match=part):
        train(finished("digits_classes", *FEW, *assignments), tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_a_network_without_labels_needs_a_classifier(tmp_path):
    train(smallest(*FEW), tmp_path, quiet)
    with pytest.raises(UserError, match=r"^--config\.task\.name=class_conditional: the network has no labels"):
        sample(smallest(*FEW, "task.name=class_conditional"), tmp_path, SampleRequest(), quiet)
