"""`idc`: stored images are cut into parts, each of which is enlarged to an image of the same class.

Kim et al., "Dataset condensation via efficient synthetic-data parameterization", ICML 2022, who
call it multi-formation. With factor f, part (i, j) of an image of height H and width W is the block
of H/f x W/f pixels in row i and column j, enlarged bilinearly to H x W. So a stored image stands
for f² images, and takes the storage of one. Their published sets have f = 2 at each IPC of
CIFAR-10, MNIST, SVHN and Fashion-MNIST, and f = 3 for ImageNet, whatever the IPC.

Only the map is theirs, and the images to start from (`init=real`): each part is a real image, of
which every f-th row and column is taken. What they match is left to the objective: gradients of
networks that are trained on real data, on CIFAR-10 by squared distance; and so is CutMix in
evaluation. Where f does not divide the images they add gray pixels; here such a factor is rejected.
"""

from torch import Tensor

from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.initialization import initial_images
from bench.distillation.upsampling import enlarge


def decode(images: Tensor, factor: int) -> Tensor:
    """[n, C, H, W] to [n*factor², C, H, W]: all parts of the first image, row by row, then of the
    second, ..."""
    return enlarge(cut(images, factor), factor)


def cut(images: Tensor, factor: int) -> Tensor:
    """[n, C, H, W] to [n*factor², C, H/factor, W/factor], in this order."""
    rows = images.unflatten(3, (factor, -1)).unflatten(2, (factor, -1))  # [n, C, f, H/f, f, W/f]
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def joined(parts: Tensor, factor: int) -> Tensor:
    """The inverse of `cut`."""
    rows = parts.unflatten(0, (-1, factor, factor))  # [n, f, f, C, H/f, W/f]
    return rows.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def initial_parts(config: RunConfig, target_set: TargetSet) -> Tensor:
    """Stored images [classes*ipc, C, H, W] to start from: each part is noise, or a real image of
    the class at every `idc_factor`-th pixel. With `init_norm`, each part has this norm once it is
    enlarged.

    Raises:
        UserError: some class has fewer training images than there are parts.
    """
    factor = config.idc_factor
    images = initial_images(config, target_set, config.ipc * factor**2)
    parts = images[..., ::factor, ::factor]
    if config.init_norm:
        norms = enlarge(parts, factor).flatten(1).norm(dim=1)
        parts = parts * (config.init_norm / norms.clamp(min=1e-12))[:, None, None, None]
    return joined(parts, factor)
