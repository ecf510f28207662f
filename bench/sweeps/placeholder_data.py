"""Random images in place of a data set, for costs that depend only on their number and shape."""

import torch

from bench.config.identity import images_per_class
from bench.config.run_config import RunConfig
from bench.data import DATASETS, Split, TargetSet, Whitening
from bench.evaluation.fresh_networks import FORWARD_BATCH
from bench.metagrad import storage_type
from bench.system.choices import SHAPES
from bench.training.randomness import torch_generator


def sizes(config: RunConfig) -> dict[str, int]:
    """Images in the parts of the whole data set."""
    train, test = DATASETS[config.dataset].sizes
    fraction = 0.0 if config.selection == "test" else config.validation_fraction
    held_out = round(fraction * train)
    return {"train": train - held_out, "validation": held_out, "test": test}


def measured_images(config: RunConfig, on_train: bool) -> int:
    """Images on which the accuracy of a network is measured; with the training part or without."""
    whole = sizes(config)
    return whole["validation"] + whole["test"] + (whole["train"] if on_train else 0)


def data_bytes(config: RunConfig) -> int:
    """Of the whole data set in memory."""
    image = torch.empty(image_shape(config), dtype=storage_type(config.precision)).nbytes
    return sum(sizes(config).values()) * image


def image_shape(config: RunConfig) -> tuple[int, int, int]:
    """(C, H, W) of the target set."""
    _, channels, native = SHAPES[config.dataset]
    side = config.image_size or native
    return channels, side, side


def random_target_set(config: RunConfig, device: torch.device) -> TargetSet:
    """Random images in place of the run's target set, no more than are looked at in one piece."""
    whole, classes = sizes(config), SHAPES[config.dataset][0]
    batches = [
        config.target_batch,
        config.full_train_batch_size,
        classes * images_per_class(config),
    ]
    counts = {"train": max(batches), "validation": FORWARD_BATCH, "test": FORWARD_BATCH}
    generator = torch_generator(0, "estimate/images")
    parts = {}
    for name, most in counts.items():
        count = min(most, whole[name])
        images = torch.randn(count, *image_shape(config), generator=generator)
        labels = torch.arange(count) % classes
        parts[name] = Split(images, labels).to(device, storage_type(config.precision))
    names = tuple(str(k) for k in range(classes))
    whitening = Whitening(image_shape(config), 0.0, 1.0)
    return TargetSet(config.dataset, "random images", "", names, **parts, whitening=whitening)
