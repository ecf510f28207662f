"""Regularized ZCA whitening of images, and its inverse, which draws them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.system.errors import UserError

_CHUNK = 5_000  # images; bounds the memory of float64 copies


@dataclass(frozen=True, eq=False)
class Whitening:
    """Per-image normalization, followed by regularized ZCA if there are `eigenvectors`.

    Each image x with D = C*H*W values in [0, 1] becomes (x - mean(x)) / ||x - mean(x)||, train and
    test images alike. Without ZCA it is then multiplied by √D, so that its values have standard
    deviation 1, the scale that learning rates of pixels and color augmentations in the literature
    are for. With C = XᵀX/n over the n normalized training images (not centered) and
    C = V diag(E) Vᵀ, an image is then multiplied by

        W = V diag(gains) Vᵀ,    gains = (E + λ mean(E))^(-1/2).

    Attributes:
        image_shape: (C, H, W).
        mean, norm: averages over the training images of the per-image mean and L2 norm; drawing
            uses them in place of an image's own, which the normalization discards.
        eigenvectors: V, float32 `[D, D]`, in columns; None without ZCA.
        gains: float32 `[D]`; None without ZCA.
    """

    image_shape: tuple[int, int, int]
    mean: float
    norm: float
    eigenvectors: Tensor | None = None
    gains: Tensor | None = None

    @classmethod
    def fit(cls, pixels: Tensor, *, zca: bool, zca_lambda: float) -> Self:
        """Fit the whitening to the training images.

        Args:
            pixels: `[n, C, H, W]`, uint8 in 0..255 or floats in [0, 1].
            zca: False: only the per-image normalization.
            zca_lambda: λ > 0, as a multiple of the mean eigenvalue.

        Raises:
            UserError: λ is not positive, or no image has any contrast.
        """
        if zca and not zca_lambda > 0:
            raise UserError(f"zca_lambda={zca_lambda} must be positive: C is always singular")
        dimension = pixels[0].numel()
        # float64, because float32's error of 1e-7 of the largest eigenvalue would reach λ mean(E).
        # Not allocated without ZCA: 1.2 GB at 64x64x3.
        gram = torch.zeros(dimension, dimension, dtype=torch.float64) if zca else None
        mean_sum = norm_sum = 0.0
        for _, images, means, norms in _normalized_chunks(pixels):
            mean_sum += means.sum().item()
            norm_sum += norms.sum().item()
            if gram is not None:
                gram += images.T @ images
        if norm_sum == 0:
            raise UserError("no training image has any contrast: whitening is impossible")
        n = len(pixels)
        channels, height, width = pixels.shape[1:]
        shape = (channels, height, width)
        if gram is None:
            return cls(shape, mean_sum / n, norm_sum / n)
        eigenvalues, eigenvectors = torch.linalg.eigh(gram / n)
        eigenvalues = eigenvalues.clamp(min=0)  # rounding makes tiny ones negative
        gains = (eigenvalues + zca_lambda * eigenvalues.mean()).rsqrt()
        return cls(shape, mean_sum / n, norm_sum / n, eigenvectors.float(), gains.float())

    def apply(self, pixels: Tensor) -> Tensor:
        """Whiten images.

        Args:
            pixels: `[n, C, H, W]`, uint8 in 0..255 or floats in [0, 1].

        Returns:
            float32 `[n, C, H, W]`. An image without contrast becomes zeros.
        """
        matrix, scale = None, math.sqrt(math.prod(self.image_shape))
        if self.eigenvectors is not None and self.gains is not None:
            eigenvectors = self.eigenvectors.to(pixels.device, torch.float64)
            scaled = eigenvectors * self.gains.to(eigenvectors)
            matrix = (scaled @ eigenvectors.T).float()  # [D, D]
        out = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
        flat = out.view(len(pixels), -1)  # [n, D]
        for rows, images, _, _ in _normalized_chunks(pixels):
            flat[rows] = images.float() * scale if matrix is None else images.float() @ matrix
        return out

    def to_pixels(self, images: Tensor) -> Tensor:
        """Invert the whitening, to draw images.

        Args:
            images: floats `[n, C, H, W]`, whitened.

        Returns:
            `[n, C, H, W]` of the same type, clipped to [0, 1]. Inverting the whitening of a real
            image gives mean 0. All are scaled to norm 1, distilled images too, and then get
            the average brightness and contrast of the training images.
        """
        flat = images.flatten(1)  # [n, D]
        if self.eigenvectors is not None and self.gains is not None:
            eigenvectors = self.eigenvectors.to(flat)
            flat = ((flat @ eigenvectors) / self.gains.to(flat)) @ eigenvectors.T
        flat = F.normalize(flat, dim=1)
        return (flat * self.norm + self.mean).clamp(0, 1).view(images.shape)

    def state(self) -> dict[str, Tensor]:
        """The attributes as tensors, for safetensors; with ZCA 4 D² bytes (38 MB at 32x32x3)."""
        tensors = {
            "image_shape": torch.tensor(self.image_shape),
            "mean": torch.tensor(self.mean, dtype=torch.float64),
            "norm": torch.tensor(self.norm, dtype=torch.float64),
        }
        if self.eigenvectors is not None and self.gains is not None:
            # eigh returns column-major matrices, which safetensors does not support
            tensors["eigenvectors"] = self.eigenvectors.contiguous()
            tensors["gains"] = self.gains
        return tensors

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor]) -> Self:
        """The inverse of `state`; other entries of `tensors` are ignored."""
        channels, height, width = tensors["image_shape"].tolist()
        return cls(
            (channels, height, width),
            tensors["mean"].item(),
            tensors["norm"].item(),
            tensors.get("eigenvectors"),
            tensors.get("gains"),
        )


def _normalized_chunks(pixels: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Yield (rows, normalized float64 `[m, D]`, means `[m]`, norms `[m]`), chunk by chunk."""
    for start in range(0, len(pixels), _CHUNK):
        rows = slice(start, start + _CHUNK)
        images = pixels[rows].flatten(1).double()
        if pixels.dtype == torch.uint8:
            images = images / 255
        means = images.mean(dim=1)
        images = images - means[:, None]
        norms = images.norm(dim=1)
        # An image without contrast has no direction; the rest of its subtraction is rounding.
        norms = torch.where(norms > 1e-9, norms, 0.0)
        safe = torch.where(norms > 0, norms, torch.inf)
        yield rows, images / safe[:, None], means, norms
