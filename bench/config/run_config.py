"""The settings of a run, with defaults and help texts.

There are three kinds of settings, each a frozen dataclass:

- `RunConfig`: WHAT is computed. Every setting in it can change a result; their hash names the run
  (`identity.py`).
- `Environment`: WHERE data and results are, and which device computes. Not part of the identity.
- `SweepOptions` in `bench.sweeps.options` and the like: the options of one command.

Values are resolved in layers, each over the one before: the defaults below, the scale
(`bench/scales/*.yaml`), the grid, the run's entry in the grid, the command line.
"""

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.config.command_line import setting
from bench.config.objectives import OBJECTIVES, UNROLLED
from bench.config.values import shown
from bench.system.choices import (
    ARCHITECTURES,
    AUGMENTATIONS,
    ENGINES,
    EPS_FORMS,
    OUTER_LOSSES,
    PRECISIONS,
    SHAPES,
)
from bench.system.errors import UserError
from methods import CLIPPINGS, METHODS

SCHEMA_VERSION = 2

LONGEST_NAME = 255  # bytes of a file's or folder's name, on all usual file systems
DECODED_IMAGES = 10  # for each image of the budget, by default


@dataclass(frozen=True)
class RunConfig:
    """Settings of a run. The defaults are the paper's for CIFAR-10, IPC 10."""

    option_groups: ClassVar = tuple(OBJECTIVES.values())  # for `--help`

    # --- what is compared
    method: str = setting(
        "rat_bptt",
        f"where the window lies: {', '.join(METHODS)}, or your own as package.module:Class",
    )
    window_size: int = setting(
        80, "inner steps in the window, through which the gradient flows", minimum=1
    )
    unroll_length: int = setting(
        250, "length of the longest trajectory, in inner steps (the paper's N)", minimum=1
    )
    method_options: dict[str, Any] = setting(
        {}, "further options of the method, e.g. method_options.patience=2000"
    )
    window_resample_every: int = setting(
        1, "outer steps before a random window is sampled again", minimum=1
    )
    clipping: str = setting(
        "ema", "how the meta-gradient is clipped before the update", tuple(CLIPPINGS)
    )
    clipped: str = setting(
        "images",
        "what clipping limits: the gradient of the images, or of basis images and coefficients, as"
        " in the paper's code; or that of images and learned labels together. Without learned"
        " labels both are the same, and it is all",
        ("images", "all"),
        before="all",
    )
    clip_ratio: float = setting(
        2.0, "ema: largest allowed norm, as a multiple of the average norm", above=0
    )
    clip_decay: float = setting(
        0.9, "ema: decay of the moving average of the norm", minimum=0, below=1
    )
    seed: int = setting(
        0,
        "seed of all random numbers; methods with the same seed see the same networks and batches",
        minimum=0,
        maximum=2**63 - 1,
    )
    objective: str = setting(
        UNROLLED,
        "what the outer loop follows: the loss of a network that is trained on the distilled set,"
        " through a window of its training (unrolled), or what the paper's rivals follow"
        " (bench/objectives/README.md), which have no window and no method",
        (UNROLLED, *OBJECTIVES),
        before=UNROLLED,
    )
    objective_options: dict[str, Any] = setting(
        {}, "further options of the objective, e.g. objective_options.real_ipc=256", before={}
    )
    scale: str = setting("paper", "scale that the settings come from", ("quick", "cpu", "paper"))

    # --- the target set and the distilled set
    dataset: str = setting("cifar10", "target set", tuple(SHAPES))
    validation_fraction: float = setting(
        0.1, "fraction of the training set held out for selection", minimum=0, below=1
    )
    image_size: int = setting(
        0,
        "height and width that images are resized to before whitening; 0: no resizing",
        minimum=0,
        maximum=4096,
    )
    zca: bool = setting(True, "whiten the images with regularized ZCA (C.1)")
    zca_lambda: float = setting(0.1, "regularization of ZCA, in mean eigenvalues", above=0)
    ipc: int = setting(
        10,
        "distilled images per class; their storage is the budget of every parameterization",
        minimum=1,
    )
    init: str = setting(
        "noise",
        "initial distilled images: standard normal noise, or real training images of each class;"
        " both are scaled to norm 1",
        ("noise", "real"),
    )
    init_norm: float = setting(
        1.0,
        "norm of each initial image, as in the paper; 0: as they are, which is what the rivals do",
        minimum=0,
        before=1.0,
    )
    learn_labels: bool = setting(False, "optimize the labels too")
    parameterization: str = setting(
        "pixels",
        "what is learned: the pixels of each image; basis images that all classes share and the"
        " coefficients of their linear combinations; images that are cut into parts, each of which"
        " is enlarged to an image (idc); or bases of each class and small networks, each of which"
        " makes an image of each base (haba)",
        ("pixels", "linear", "idc", "haba"),
    )
    basis_images: int = setting(
        0, "linear: number of basis images; 0: as many as the budget allows", minimum=0
    )
    basis_downsample: int = setting(
        2,
        "linear: the images' height and width divided by those of a basis image; combined images"
        " are upsampled bilinearly; 1: no upsampling",
        minimum=1,
    )
    decoded_ipc: int = setting(
        0, f"linear: combined images per class; 0: {DECODED_IMAGES} times ipc", minimum=0
    )
    idc_factor: int = setting(
        2,
        "idc: parts along each side of a stored image, whose number is the square of this; each is"
        " enlarged bilinearly to an image",
        minimum=2,
        before=2,
    )
    haba_hallucinators: int = setting(
        5, "haba: networks, each of which makes an image of each base", minimum=1, before=5
    )
    haba_bases: int = setting(
        0,
        "haba: bases per class; 0: as many as the budget allows beside the networks",
        minimum=0,
        before=0,
    )
    haba_single_channel: bool = setting(
        False,
        "haba: bases of one channel, which take less storage; the networks make images of all"
        " channels of them",
        before=False,
    )
    boost_block: int = setting(
        0, "Boost-DD: images per class in a block; 0: no boosting", minimum=0
    )
    boost_beta: float = setting(
        0.0,
        "Boost-DD: factor on the updates of earlier blocks; 0: frozen (strong), above 0: weak",
        minimum=0,
        maximum=1,
    )
    target_batch: int = setting(
        5000, "target images per outer step, at most the whole training set", minimum=1
    )
    augment_target: str = setting("flip_or_rotate", "augmentation of target batches", AUGMENTATIONS)
    augment_inner: str = setting("flip_or_rotate", "augmentation of inner batches", AUGMENTATIONS)
    augment_evaluation: str = setting(
        "flip_or_rotate",
        "augmentation when fresh networks are trained for an evaluation",
        AUGMENTATIONS,
    )

    # --- the network and its training (inner loop)
    arch: str = setting("convnet", "network trained on the distilled set", ARCHITECTURES)
    width: int = setting(
        128,
        "convnet: channels of each block; wide_convnet: channels of the first block, doubled in"
        " each later one; other networks have one size, and 0 here",
        minimum=0,
    )
    depth: int = setting(
        3, "convnet, wide_convnet: blocks; other networks have 0 here", minimum=0, maximum=16
    )
    conv_bias: bool = setting(
        True,
        "whether convolutions before an instance norm have biases, as published; the norm removes"
        " their effect, but not their rounding noise. resnet18 has none either way",
        before=True,
    )
    inner_optimizer: str = setting("adam", "inner optimizer", ("adam", "sgd"))
    inner_lr: float = setting(0.001, "learning rate of the inner optimizer", above=0)
    inner_momentum: float = setting(0.0, "sgd: heavy-ball momentum", minimum=0, below=1)
    inner_eps: float = setting(1e-8, "adam: epsilon", above=0)
    inner_eps_form: str = setting(
        "torch",
        "adam: whether epsilon is added after the bias correction (torch), before it (higher,"
        " torch <= 1.2), or as in the paper's code: before it inside the window, after it in"
        " warm-up and evaluation (published)",
        EPS_FORMS,
    )
    inner_weight_decay: float = setting(0.0, "L2 weight decay of the inner optimizer", minimum=0)
    inner_decay_steps: list[int] = setting(
        [], "inner steps at which the learning rate decays", minimum=1
    )
    inner_decay_factor: float = setting(
        0.2, "factor of each learning rate decay", minimum=0, maximum=1
    )
    inner_classes: int = setting(
        0, "classes in an inner batch, sampled again for each step; 0: all", minimum=0
    )
    inner_ipc: int = setting(0, "distilled images per class in an inner batch; 0: all", minimum=0)

    # --- the outer loop
    engine: str = setting("exact", "how meta-gradients are computed", ENGINES)
    precision: str = setting(
        "float32",
        "floating point format of the meta-gradient; tf32 and bf16 round the inputs of"
        " convolutions and linear layers only",
        PRECISIONS,
    )
    outer_loss: str = setting(
        "cross_entropy",
        "loss of the target batch; mse: between logits and one-hot labels. The inner loss is always"
        " the cross-entropy",
        OUTER_LOSSES,
    )
    outer_steps: int = setting(20000, "number of updates of the distilled set", minimum=1)
    outer_optimizer: str = setting(
        "adam", "outer optimizer; the rivals move pixels by sgd", ("adam", "sgd"), before="adam"
    )
    outer_lr: float = setting(0.001, "learning rate of the outer optimizer", above=0)
    outer_momentum: float = setting(
        0.0, "sgd: heavy-ball momentum of the outer optimizer", minimum=0, below=1, before=0.0
    )
    not_finite: str = setting(
        "skip",
        "after an outer step whose loss or meta-gradient is not finite: go on without it, until"
        " more than 50 in a row (skip); end as diverged (stop); or go back to the distilled set of"
        " up to 100 steps before, 10 times at most (restore)",
        ("skip", "stop", "restore"),
        before="skip",
    )
    replicas: int = setting(
        1,
        "networks, each with its own target batch, whose meta-gradients are averaged",
        minimum=1,
        maximum=10_000,
    )

    # --- what is measured
    variance_every: int = setting(
        100, "outer steps between measurements of the variance (C.4); 0: never", minimum=0
    )
    variance_until: int = setting(
        0, "outer step before which these measurements end; 0: they never end", minimum=0, before=0
    )
    variance_samples: int = setting(
        100, "single-sample gradients in a measurement of the variance; at least 2", minimum=1
    )
    accuracy_every: int = setting(
        500, "outer steps between measurements of the accuracy; 0: never", minimum=0
    )
    accuracy_networks: int = setting(
        3, "fresh networks in a measurement of the accuracy", minimum=1
    )
    accuracy_steps: int = setting(300, "training steps of each of these networks", minimum=1)
    evaluation_optimizer: str = setting(
        "inner",
        "optimizer that trains the fresh networks of every evaluation: the inner optimizer with all"
        " of its settings; or Adam or SGD without momentum, weight decay and decay steps",
        ("inner", "adam", "sgd"),
        before="inner",
    )
    evaluation_lr: float = setting(
        0.0, "learning rate of that optimizer; 0: inner_lr", minimum=0, before=0.0
    )
    evaluation_networks: int = setting(10, "fresh networks in the final evaluation", minimum=1)
    evaluation_steps: list[int] = setting(
        [300, 600, 1000, 3000],
        "training steps at which these networks are measured; the best is selected",
        minimum=1,
    )
    selection: str = setting(
        "validation",
        "set that selects the checkpoint and the step count: a held-out part of the training set;"
        " the rest of it (with validation_fraction=0 the whole, as in the version of the code that"
        " the paper cites); or the test set (as in the other published version), which"
        " overestimates the accuracy",
        ("validation", "train", "test"),
    )
    transfer_to: list[str] = setting(
        [],
        "other networks to test the final distilled set on; convnet and wide_convnet with the same"
        " width and depth",
        ARCHITECTURES,
    )
    scores: bool = setting(
        False,
        "compare the final set with random real images and the full training set: HLR, IOR"
        " (bench/evaluation/README.md)",
    )
    full_train_batch_size: int = setting(
        256, "scores: batch size on the full training set", minimum=1
    )
    full_train_steps: list[int] = setting(
        [],
        "scores: training steps at which networks on the full training set are measured, the best"
        " is selected; []: as evaluation_steps",
        minimum=1,
    )


@dataclass(frozen=True)
class Environment:
    """Folders and devices. They are not part of a run's identity."""

    data_root: str = setting(
        os.environ.get("BENCH_DATA_ROOT", "data"), "folder of the data sets ($BENCH_DATA_ROOT)"
    )
    cache_root: str = setting(
        os.environ.get("BENCH_CACHE_ROOT", "~/.cache/window-bench"),
        "cache folder of decoded and whitened images, and of experts ($BENCH_CACHE_ROOT)",
    )
    results_root: str = setting("results", "folder of the results")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")
    threads: int = setting(
        0,
        "CPU threads per run; 0: all cores (or $OMP_NUM_THREADS) for a single run, one thread per"
        " run of a sweep",
        minimum=0,
        maximum=4096,
    )
    activation_memory: str = setting(
        "auto",
        "GiB of activations that the exact engine keeps for its backward pass; 0: recomputes all;"
        " auto: a quarter of the free memory, on a CPU times this run's share of the cores",
    )
    compile: str = setting(
        "auto",
        "compile the steps of the exact engine, which takes minutes at the start; auto: on a GPU"
        " where torch.compile works; compiled steps always recompute activations",
        ("auto", "always", "never"),
    )
    checkpoint_seconds: float = setting(60.0, "most seconds between two checkpoints", minimum=0)

    def __post_init__(self) -> None:
        # From Python, a grid or the environment ~ arrives as it was typed.
        for name in ("data_root", "cache_root", "results_root"):
            path = os.path.expanduser(getattr(self, name))
            if len(os.fsencode(max(path.split("/"), key=len))) > LONGEST_NAME:
                raise UserError(
                    f"{name}={shown(path)}: a name in the path has more than {LONGEST_NAME} bytes"
                )
            object.__setattr__(self, name, path)
