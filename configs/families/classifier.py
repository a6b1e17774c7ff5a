"""Shared parts of the classifiers of noisy images."""

from ml_collections import ConfigDict


def classifier(center: float) -> ConfigDict:
    """Return the classifier of score-SDE for the VE SDE (arXiv 2011.13456, Appendix I.1).

    Args:
        center: mean of the pixels.
    """
    return ConfigDict(
        dict(
            seed=0,
            data=dict(value_range=(0.0, 1.0)),
            model=dict(name="wide_resnet", num_classes=10),
            sde=dict(name="ve", sigma_min=0.01, sigma_max=50.0),
            # a classifier uses only the input scaling and the noise condition of the parameterization
            parameterization=dict(
                name="scaled_score", center=center, input_scale=1.0, condition=dict(name="log_sigma")
            ),
            loss=dict(name="classification", times=dict(name="uniform"), weight=dict(name="simple")),
            optimizer=dict(name="adam", learning_rate=2e-4, decay="cosine"),
            train=dict(steps=200_000, batch_size=128, ema_decay=0.999, log_every=100),
            checkpoint=dict(every=5000, keep=2),
        )
    )
