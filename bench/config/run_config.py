"""The whole configuration of a run: typed, with defaults and help texts, and its identity.

Frozen dataclasses, one for each question:

- `RunConfig`: WHAT is computed. Everything in it can change a result; its hash names the run.
- `Place`: WHERE data and results lie and on what the run computes. Not part of the identity.
- `SweepOptions` in `bench.sweep` and the like: what one command is asked to do.

Values are resolved in layers, each over the one before: the defaults below, the scale
(`bench/scales/*.yaml`), the grid, the run's entry in the grid, the command line.
"""

import hashlib
import json
import os
from dataclasses import MISSING, dataclass, fields
from typing import Any

from bench.config.command_line import setting
from methods import CLIPPINGS, METHODS

SCHEMA_VERSION = 2

# What other rooms offer, named here because this room lies below them; a test compares.
AUGMENTATIONS = ("none", "flip", "rotate", "flip_or_rotate")
DATASETS = ("digits", "cifar10", "cifar100", "cub200", "tiny_imagenet")
SIZED_ARCHITECTURES = ("convnet", "wide_convnet")
ARCHITECTURES = (*SIZED_ARCHITECTURES, "alexnet", "alexnet_avgpool", "vgg11", "resnet18")
ENGINES = ("exact", "higher")
EPS_FORMS = ("torch", "higher", "published")
OUTER_LOSSES = ("cross_entropy", "mse")
PRECISIONS = ("float32", "tf32", "bf16", "float64")

# The smallest height and width that a network of one size takes; a test compares.
SMALLEST_SIDES = {"alexnet": 8, "alexnet_avgpool": 8, "vgg11": 32, "resnet18": 9}

DECODED_IMAGES = 10  # for each image of the budget, where a run does not say how many


@dataclass(frozen=True)
class RunConfig:
    """Everything that can change a run's result. Defaults are the paper's for CIFAR-10, IPC 10."""

    # --- what is compared
    method: str = setting(
        "rat_bptt",
        f"where the window lies: {', '.join(METHODS)}, or your own as package.module:Class",
    )
    window_size: int = setting(80, "inner steps that the gradient flows through", minimum=1)
    unroll_length: int = setting(
        250, "longest trajectory, in inner steps (the paper's N)", minimum=1
    )
    method_options: dict[str, Any] = setting(
        {}, "options of the method beyond these, e.g. method_options.patience=2000"
    )
    window_resample_every: int = setting(
        1, "outer steps that share one draw of a random window", minimum=1
    )
    clipping: str = setting(
        "ema", "what is done to a meta-gradient before the update", tuple(CLIPPINGS)
    )
    clip_ratio: float = setting(
        2.0, "ema: largest norm, as a multiple of the average norm", above=0
    )
    clip_decay: float = setting(
        0.9, "ema: decay of the moving average of the norm", minimum=0, below=1
    )
    seed: int = setting(
        0,
        "of every random draw; methods with equal seeds see equal draws",
        minimum=0,
        maximum=2**63 - 1,
    )
    scale: str = setting(
        "paper", "how much of the paper's setting is used", ("quick", "cpu", "paper")
    )

    # --- the target set and the distilled set
    dataset: str = setting("cifar10", "target set", DATASETS)
    validation_fraction: float = setting(
        0.1, "part of the training set held out for selection", minimum=0, below=1
    )
    image_size: int = setting(
        0,
        "height and width that images are resized to before whitening; 0: as they are",
        minimum=0,
        maximum=4096,
    )
    zca: bool = setting(True, "whiten the images with regularised ZCA (C.1)")
    zca_lambda: float = setting(0.1, "regularisation of ZCA, in mean eigenvalues", above=0)
    ipc: int = setting(
        10, "distilled images per class; linear: those whose storage is the budget", minimum=1
    )
    init: str = setting(
        "noise",
        "initial distilled images: standard normal noise, or real training images of each class;"
        " either way scaled to norm 1",
        ("noise", "real"),
    )
    learn_labels: bool = setting(False, "optimise the labels too")
    parameterization: str = setting(
        "pixels",
        "what is learned: the pixels of each image, or basis images that all classes share and"
        " the coefficients that combine them linearly",
        ("pixels", "linear"),
    )
    basis_images: int = setting(
        0, "linear: basis images; 0: as many as the budget holds", minimum=0
    )
    basis_downsample: int = setting(
        2,
        "linear: bases have 1/this of the images' height and width, and what they combine to is"
        " enlarged bilinearly; 1: as large as the images",
        minimum=1,
    )
    decoded_ipc: int = setting(
        0,
        f"linear: images per class that they are combined to; 0: {DECODED_IMAGES} times ipc",
        minimum=0,
    )
    boost_block: int = setting(
        0, "images per class that are added at a time (Boost-DD); 0: all at once", minimum=0
    )
    boost_beta: float = setting(
        0.0,
        "boosting: of the updates of earlier blocks; 0: frozen (strong), above: weak",
        minimum=0,
        maximum=1,
    )
    target_batch: int = setting(
        5000, "target images per outer step; at most the training set", minimum=1
    )
    augment_target: str = setting(
        "flip_or_rotate",
        "augmentation of target batches",
        AUGMENTATIONS,
    )
    augment_inner: str = setting(
        "flip_or_rotate",
        "augmentation of inner batches",
        AUGMENTATIONS,
    )
    augment_evaluation: str = setting(
        "flip_or_rotate",
        "augmentation when fresh networks are trained to evaluate",
        AUGMENTATIONS,
    )

    # --- the network and its training (inner loop)
    arch: str = setting("convnet", "network trained on the distilled set", ARCHITECTURES)
    width: int = setting(
        128,
        "convnet: channels of each block; wide_convnet: of the first, doubled in each after it;"
        " the others have none, and 0 here",
        minimum=0,
    )
    depth: int = setting(
        3, "convnet, wide_convnet: blocks; the others have none, and 0 here", minimum=0, maximum=16
    )
    inner_optimizer: str = setting("adam", "inner optimiser", ("adam", "sgd"))
    inner_lr: float = setting(0.001, "learning rate of the inner optimiser", above=0)
    inner_momentum: float = setting(0.0, "sgd: heavy-ball momentum", minimum=0, below=1)
    inner_eps: float = setting(1e-8, "adam: epsilon", above=0)
    inner_eps_form: str = setting(
        "torch",
        "adam: epsilon after (torch) or before (higher, torch <= 1.2) the bias correction, or as in"
        " the paper's code: before it inside the window, after it in the warm-up and in evaluation"
        " (published)",
        EPS_FORMS,
    )
    inner_weight_decay: float = setting(0.0, "L2 weight decay of the inner optimiser", minimum=0)
    inner_decay_steps: list[int] = setting(
        [], "inner steps at which the learning rate decays", minimum=1
    )
    inner_decay_factor: float = setting(0.2, "factor of each decay", minimum=0, maximum=1)
    inner_classes: int = setting(
        0, "classes in an inner batch, drawn anew each step; 0: all", minimum=0
    )
    inner_ipc: int = setting(0, "distilled images of each of them; 0: all", minimum=0)

    # --- the outer loop
    engine: str = setting("exact", "how meta-gradients are computed", ENGINES)
    precision: str = setting(
        "float32",
        "numbers in which meta-gradients are computed; tf32 and bf16 round the inputs of"
        " convolutions and linear layers",
        PRECISIONS,
    )
    outer_loss: str = setting(
        "cross_entropy",
        "loss of the target batch; mse: of the logits, to the one-hot labels. The inner loss is the"
        " cross-entropy always",
        OUTER_LOSSES,
    )
    outer_steps: int = setting(20000, "updates of the distilled set", minimum=1)
    outer_lr: float = setting(0.001, "learning rate of the outer Adam", above=0)
    replicas: int = setting(
        1,
        "networks, each with its own target batch, whose meta-gradients are averaged",
        minimum=1,
        maximum=10_000,
    )

    # --- what is measured
    variance_every: int = setting(
        100, "outer steps between normalized variances (C.4); 0: never", minimum=0
    )
    variance_samples: int = setting(
        100, "single-sample losses behind each of them; at least 2 where any are", minimum=1
    )
    accuracy_every: int = setting(
        500, "outer steps between accuracies of fresh networks; 0: never", minimum=0
    )
    accuracy_networks: int = setting(3, "fresh networks behind each of them", minimum=1)
    accuracy_steps: int = setting(300, "steps they are trained for", minimum=1)
    evaluation_networks: int = setting(10, "fresh networks in the final evaluation", minimum=1)
    evaluation_steps: list[int] = setting(
        [300, 600, 1000, 3000],
        "steps at which they are measured; the best is selected",
        minimum=1,
    )
    selection: str = setting(
        "validation",
        "what chooses checkpoint and step count; test is the published protocol, not a fair number",
        ("validation", "test"),
    )
    transfer_to: list[str] = setting(
        [],
        "other networks that the final distilled set is tested on as well; the sized ones with this"
        " width and depth",
        ARCHITECTURES,
    )
    scores: bool = setting(
        False,
        "at the end, compare with random real images and the full training set: HLR, IOR"
        " (bench/evaluation/dd_ranking.py)",
    )
    full_train_batch_size: int = setting(
        256, "scores: images in a batch of the full training set", minimum=1
    )
    full_train_steps: list[int] = setting(
        [],
        "scores: steps at which networks trained on the full training set are measured, the best is"
        " selected; []: those of evaluation_steps",
        minimum=1,
    )


@dataclass(frozen=True)
class Environment:
    """Where things lie and what computes. Part of no run's identity."""

    data_root: str = setting(
        os.environ.get("BENCH_DATA_ROOT", "data"), "folder of the image data ($BENCH_DATA_ROOT)"
    )
    cache_root: str = setting(
        os.environ.get("BENCH_CACHE_ROOT", "~/.cache/window-bench"),
        "folder of decoded and whitened images ($BENCH_CACHE_ROOT)",
    )
    results_root: str = setting("results", "folder of the results")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")
    threads: int = setting(
        0,
        "CPU threads of a run; 0: all (or $OMP_NUM_THREADS) for one run, one for each of a sweep",
        minimum=0,
        maximum=4096,
    )
    activation_memory: str = setting(
        "auto",
        "GiB of activations that the exact engine keeps for its backward pass; 0: computes all"
        " again; auto: a quarter of what is free, or the share of this run's threads",
    )
    compile: str = setting(
        "auto",
        "compile the steps of the exact engine, for minutes at the start: always, never, or auto:"
        " on a GPU where torch.compile works; activations are then always computed again",
        ("auto", "always", "never"),
    )
    checkpoint_seconds: float = setting(60.0, "longest time between two checkpoints", minimum=0)


def images_per_class(config: RunConfig) -> int:
    """Images of each class in the distilled set: `ipc`, or what bases are combined to."""
    if config.parameterization == "linear":
        return config.decoded_ipc or DECODED_IMAGES * config.ipc
    return config.ipc


def values_before(schema: type = RunConfig) -> dict[str, Any]:
    """Of each setting added since schema 2, the value that reproduces what was done before it."""
    found = {item.name: item.metadata.get("before", MISSING) for item in fields(schema)}
    return {key: value for key, value in found.items() if value is not MISSING}


def _identifying(settings: dict[str, Any], schema: type = RunConfig) -> dict[str, Any]:
    """The settings that a run's hash is over: all but `scale`, which names where values came from
    and changes no computation, and but those added since schema 2 that are at the value which
    reproduces what was done before. So a setting that is added renames no run."""
    before = {"scale": settings.get("scale"), **values_before(schema)}
    return {k: v for k, v in settings.items() if k not in before or v != before[k]}


def identity(config: RunConfig) -> str:
    """The hash that names a run: over its full resolved configuration and the schema version."""
    return _digest({"schema": SCHEMA_VERSION, **_identifying(vars(config), type(config))})


def experiment_identity(config: RunConfig) -> str:
    """The same without the seed: what the seeds of one experiment have in common."""
    settings = {**_identifying(vars(config), type(config)), "seed": None}
    return _digest({"schema": SCHEMA_VERSION, **settings})


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def run_name(config: RunConfig) -> str:
    """The name of a run's folder: the method and the identity, e.g. `rat_bptt-3f0c9a1b22de`."""
    return written_name({"schema": SCHEMA_VERSION, **vars(config)})


def written_name(settings: dict[str, Any]) -> str:
    """The same for a configuration as it stands in a file, its schema version included."""
    method = str(settings.get("method", "")).rpartition(":")[2]
    return f"{method}-{_digest(_identifying(settings))}"
