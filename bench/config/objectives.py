"""The objectives beside the unrolled one, and their options. What they compute is in
`bench/objectives`, whose `IMPLEMENTATIONS` names the class of each.

The defaults are those of the paper that an objective is from, for CIFAR-10 with ten images per
class. Its learning rates and the like are settings of a run (`bench/grids/rivals.yaml` has them).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench.config.command_line import setting
from bench.system.choices import AUGMENTATIONS
from bench.system.errors import UserError
from methods import Look
from methods.look import (
    BLACK,
    BLUE,
    DASH_DOTTED,
    DASHED,
    DOTTED,
    GREEN,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILION,
)

UNROLLED = "unrolled"


@dataclass(frozen=True)
class Options:
    """What all objectives say of themselves.

    Attributes:
        prefix: of its options on the command line.
        label: what figures and tables call it.
        look: of its curve.
        learns_labels: whether it has a gradient with respect to labels.
        takes_target_batch: whether it draws target batches of `target_batch` images.
        keeps_state: whether it keeps networks or numbers of its own from one outer step to the
            next, of which there can be one per run: it has no replicas.
        pools: whether each layer of its `depth` halves the images.
    """

    prefix: ClassVar[str] = "objective_options."
    label: ClassVar[str]
    look: ClassVar[Look]
    learns_labels: ClassVar[bool] = False
    takes_target_batch: ClassVar[bool] = False
    keeps_state: ClassVar[bool] = False
    pools: ClassVar[bool] = False


@dataclass(frozen=True)
class DM(Options):
    """dm: distribution matching (Zhao and Bilen, WACV 2023)"""

    label = "DM"
    look = Look(GREEN, DASHED, "v")

    real_ipc: int = setting(256, "real images per class in an outer step", minimum=1)
    augmentation: str = setting(
        "dsa", "of real and distilled images of a class alike", AUGMENTATIONS
    )


@dataclass(frozen=True)
class DC(Options):
    """dc: gradient matching (Zhao, Mopuri and Bilen, ICLR 2021)"""

    label = "DC"
    look = Look(ORANGE, DASHED, "^")
    keeps_state = True

    real_ipc: int = setting(256, "real images per class in an outer step", minimum=1)
    augmentation: str = setting(
        "none", "of real and distilled images of a class alike", AUGMENTATIONS
    )
    outer_steps_per_network: int = setting(
        10, "outer steps before a fresh network is drawn; the paper has 1 at ipc=1", minimum=1
    )
    network_steps: int = setting(
        50,
        "steps that the network is trained on the distilled set between two of them; the paper has"
        " 1 at ipc=1",
        minimum=0,
    )
    network_lr: float = setting(0.01, "learning rate of this training, by SGD", above=0)


@dataclass(frozen=True)
class DSA(DC):
    """dsa: the same with differentiable Siamese augmentation (Zhao and Bilen, ICML 2021)"""

    label = "DSA"
    look = Look(PURPLE, DASH_DOTTED, "<")

    augmentation: str = setting(
        "dsa", "of real and distilled images of a class alike", AUGMENTATIONS
    )


@dataclass(frozen=True)
class FRePO(Options):
    """frepo: ridge regression on features of a pool of networks (Zhou et al., NeurIPS 2022)"""

    label = "FRePO"
    look = Look(BLUE, DOTTED, "p")
    learns_labels = True
    takes_target_batch = True
    keeps_state = True

    networks: int = setting(10, "networks in the pool", minimum=1)
    online_steps: int = setting(
        100, "steps that a network is trained, one after each use, until it is replaced", minimum=0
    )
    network_lr: float = setting(0.0003, "learning rate of this training, by Adam", above=0)
    mirror: bool = setting(
        True, "mirrored distilled images take part in the regression; digits should not be mirrored"
    )


@dataclass(frozen=True)
class KIP(Options):
    """kip: ridge regression with a neural tangent kernel (Nguyen et al., ICLR 2021)"""

    label = "KIP (fully connected)"
    look = Look(BLACK, DOTTED, "d")
    learns_labels = True
    takes_target_batch = True

    depth: int = setting(1, "hidden layers of the infinitely wide network", minimum=1, maximum=100)


@dataclass(frozen=True)
class RFAD(Options):
    """rfad: ridge regression on features of random networks (Loo et al., NeurIPS 2022)"""

    label = "RFAD"
    look = Look(VERMILION, DOTTED, ">")
    learns_labels = True
    takes_target_batch = True
    keeps_state = True
    pools = True

    networks: int = setting(8, "random networks in an outer step", minimum=1)
    width: int = setting(256, "channels of each of their convolutions", minimum=1)
    depth: int = setting(3, "blocks of convolution, ReLU and pooling", minimum=1, maximum=16)
    ridge: float = setting(
        0.005, "ridge of the regression, as a fraction of the mean eigenvalue", above=0
    )
    platt: bool = setting(
        True, "cross-entropy with a learned temperature, instead of the squared error"
    )
    temperature_lr: float = setting(0.01, "learning rate of the temperature, by Adam", above=0)


@dataclass(frozen=True)
class RCIG(Options):
    """rcig: implicit gradient of a linearized network's training (Loo et al., ICML 2023)"""

    label = "RCIG"
    look = Look(SKY_BLUE, DOTTED, "*")
    learns_labels = True
    takes_target_batch = True
    keeps_state = True

    networks: int = setting(30, "networks in the pool", minimum=1)
    online_steps: int = setting(
        100, "steps that a network of the pool is trained until it is replaced", minimum=1
    )
    most_updates: int = setting(
        15, "the most of these steps between two outer steps; at least 1", minimum=1
    )
    network_lr: float = setting(0.00005, "learning rate of this training, by Adam", above=0)
    inner_steps: int = setting(20, "steps that train the linearized network", minimum=0)
    inverse_steps: int = setting(
        20, "steps of the solution with its second derivative; 0: no implicit gradient", minimum=0
    )
    ridge: float = setting(0.0005, "ridge of the regression, for each distilled image", above=0)
    limit_implicit: bool = setting(
        True, "scale the implicit gradient down to the norm of the direct one"
    )
    temperature_lr: float = setting(0.03, "learning rate of the temperature, by Adam", above=0)
    mirror: bool = setting(
        True, "mirrored distilled images take part in all training; digits should not be mirrored"
    )


@dataclass(frozen=True)
class MTT(Options):
    """mtt: trajectory matching (Cazenavette et al., CVPR 2022)"""

    label = "MTT"
    look = Look(SKY_BLUE, DASHED, "d")
    keeps_state = True

    experts: int = setting(100, "expert trajectories", minimum=1)
    # Every option `expert_...` changes what the experts are, and so which files they are kept in.
    expert_epochs: int = setting(50, "epochs that each expert is trained", minimum=1)
    expert_lr: float = setting(0.01, "learning rate of the experts, by SGD", above=0)
    expert_batch: int = setting(256, "images in a batch of the experts", minimum=1)
    expert_augmentation: str = setting(
        "dsa_each", "of the images that experts are trained on", AUGMENTATIONS
    )
    start_epochs: int = setting(
        20, "epochs of an expert that the student can start after, counted from 0", minimum=1
    )
    matched_epochs: int = setting(
        2, "epochs of the expert that end at the parameters to be matched", minimum=1
    )
    student_steps: int = setting(30, "steps that the student takes to match them", minimum=1)
    student_batch: int = setting(0, "images in a batch of the student; 0: all", minimum=0)
    augmentation: str = setting(
        "dsa_each", "of the images that the student is trained on", AUGMENTATIONS
    )
    student_lr: float = setting(
        0.01, "initial learning rate of the student, which is learned", above=0
    )
    lr_lr: float = setting(
        1e-4, "learning rate of the student's learning rate; 0: not learned", minimum=0
    )

    def __post_init__(self) -> None:
        if (last := self.start_epochs - 1 + self.matched_epochs) > self.expert_epochs:
            raise UserError(
                f"expert_epochs={self.expert_epochs}: start_epochs={self.start_epochs} and"
                f" matched_epochs={self.matched_epochs} need {last}"
            )


@dataclass(frozen=True)
class FTD(MTT):
    """ftd: the same with experts trained for flat trajectories (Du et al., CVPR 2023)"""

    label = "FTD"
    look = Look(BLUE, DASH_DOTTED, "D")

    student_lr: float = setting(
        0.001, "initial learning rate of the student, which is learned", above=0
    )
    lr_lr: float = setting(
        1e-5, "learning rate of the student's learning rate; 0: not learned", minimum=0
    )
    expert_rho: float = setting(
        0.01, "radius within which the experts' training looks for a higher loss", minimum=0
    )
    expert_alpha: float = setting(
        0.4, "how much of their gradient across that of the higher loss is taken off", minimum=0
    )


OBJECTIVES: Mapping[str, type[Options]] = {
    "dm": DM,
    "dc": DC,
    "dsa": DSA,
    "mtt": MTT,
    "ftd": FTD,
    "frepo": FRePO,
    "kip": KIP,
    "rfad": RFAD,
    "rcig": RCIG,
}


def objective_label(name: str) -> str | None:
    """What figures and tables call an objective; None for a name that is none."""
    return OBJECTIVES[name].label if name in OBJECTIVES else None
