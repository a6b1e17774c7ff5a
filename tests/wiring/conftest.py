"""Data of every kind, and runs without compilation."""

import made_up
import numpy as np
import pytest
from journeys import Journeys
from PIL import Image
from two_values import CLASSIFIER, context


class Places(dict):
    """Paths by name; costly files are written on their first use."""

    def __init__(self, makers):
        super().__init__()
        self.makers = makers

    def __missing__(self, name):
        self[name] = self.makers[name]()
        return self[name]


@pytest.fixture(scope="session")
def journeys(tmp_path_factory, request):
    """Runs of all drivers, with the images, arrays, folders, mask and classifiers that two_values.py names."""
    root, rng = tmp_path_factory.mktemp("places"), np.random.default_rng(0)

    def trained(seed):
        return lambda: made.workdir(CLASSIFIER, (*context("loss=classification"), f"seed={seed}"))

    makers = {"tfds": lambda: request.getfixturevalue("data_dir")}
    makers |= {"classifier": trained(0), "other_classifier": trained(1)}
    places = Places(makers)
    for name in ("folder", "other_folder"):
        places[name] = root / name
        for label in ("a", "b"):
            (places[name] / label).mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
                Image.fromarray(pixels).save(places[name] / label / f"{i}.png")
    for seed, name in enumerate(("earth", "other_earth")):
        places[name] = root / name
        places[name].mkdir()
        made_up.write_earth(places[name], seed)
    for name in ("color", "other_color"):
        places[name] = root / f"{name}.npz"
        np.savez(places[name], images=rng.integers(0, 256, (9, 8, 8, 3), np.uint8), labels=np.arange(9) % 3)
    places["image"], places["mask"] = places["folder"] / "a" / "0.png", root / "mask.npy"
    np.save(places["mask"], np.eye(8))
    made = Journeys(tmp_path_factory.mktemp("journeys"), places)
    return made
