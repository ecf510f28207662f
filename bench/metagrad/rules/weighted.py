"""Layers with parameters: convolution, instance norm, linear."""

from typing import Any

import torch
from torch import Tensor, nn

from bench.metagrad.rules.application import Cast, Parameters
from bench.metagrad.rules.maps import combine, mean, per_map, shaped_like

# On a CPU, weights of so many times the numbers of a batch cost more to rearrange for
# channels-last maps, at each use, than those maps gain.
HEAVY = 8


class Convolution:
    """y = W * x + b."""

    def __init__(self, layer: nn.Conv2d, p: Parameters, cast: Cast) -> None:
        assert not isinstance(layer.padding, str)
        self.cast, self.dtype = cast, p[0].dtype
        self.weight, self.bias = cast(p[0]), cast(p[1]) if len(p) > 1 else None
        self.geometry = (layer.stride, layer.padding, layer.dilation)

    def forward(self, x: Tensor) -> Tensor:
        self.x = self.cast(x)
        if x.device.type == "cpu" and self.weight.numel() > HEAVY * x.numel():
            self.x = self.x.contiguous()
        return torch.conv2d(self.x, self.weight, self.bias, *self.geometry).to(self.dtype)

    def input_gradient(self, gy: Tensor) -> Tensor:
        return self._input_gradient(gy, self.x, self.weight)

    def parameter_gradients(self, gy: Tensor) -> Parameters:
        weight = self._weight_gradient(gy, self.x, self.weight)
        return (weight, gy.sum((0, 2, 3)))[: self._count]

    def tangent(self, x_dot: Tensor | None, p_dot: Parameters) -> Tensor:
        self.x_dot, self.weight_dot = None, self.cast(p_dot[0])  # [directions, out, in, kh, kw]
        directions = len(self.weight_dot)
        bias = self.cast(p_dot[1]).flatten() if self._count > 1 else None
        # One convolution to directions·out channels: x is read once for all directions.
        moved = torch.conv2d(self.x, self.weight_dot.flatten(0, 1), bias, *self.geometry)
        y_dot = moved.unflatten(1, (directions, -1)).transpose(0, 1)
        if x_dot is not None:
            self.x_dot = self.cast(x_dot)
            through = torch.conv2d(self.x_dot.flatten(0, 1), self.weight, None, *self.geometry)
            y_dot = through.unflatten(0, (directions, -1)).add_(y_dot)
        return y_dot.to(self.dtype)

    def tangent_input_gradient(self, gy: Tensor, gy_dot: Tensor) -> Tensor:
        directions = len(gy_dot)
        flat = gy_dot.flatten(0, 1)
        through = self._input_gradient(flat, shaped_like(self.x, len(flat)), self.weight)
        # Again all directions at once: gy [batch, out] meets weights of directions·in channels.
        weights = self.weight_dot.transpose(0, 1).flatten(1, 2)
        wide = shaped_like(self.x, len(self.x), weights.shape[1])
        moved = self._input_gradient(gy, wide, weights)
        moved = moved.unflatten(1, (directions, -1)).transpose(0, 1)
        return through.unflatten(0, (directions, -1)).add_(moved)

    def tangent_parameter_gradients(self, gy: Tensor, gy_dot: Tensor) -> Parameters:
        directions = len(gy_dot)
        # [batch, directions·out]: gradients of directions·out kernels on the one x.
        wide_gy = gy_dot.transpose(0, 1).flatten(1, 2)
        weight = self._weight_gradient(wide_gy, self.x, self.weight_dot.flatten(0, 1))
        weight = weight.unflatten(0, (directions, -1))
        if self.x_dot is not None:
            wide_x = self.x_dot.transpose(0, 1).flatten(1, 2)  # [batch, directions·in]
            kernels = self.weight_dot.transpose(0, 1).flatten(1, 2)
            through = self._weight_gradient(gy, wide_x, kernels)
            weight = weight + through.unflatten(1, (directions, -1)).transpose(0, 1)
        return (weight, gy_dot.sum((1, 3, 4)))[: self._count]

    @property
    def _count(self) -> int:
        return 1 if self.bias is None else 2

    def _input_gradient(self, gy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        gx, _, _ = self._gradients(gy, x, weight, [True, False, False])
        return gx.to(self.dtype)

    def _weight_gradient(self, gy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        _, gradient, _ = self._gradients(gy, x, weight, [False, True, False])
        return gradient.to(self.dtype)

    def _gradients(self, gy: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> Any:
        stride, padding, dilation = self.geometry
        return torch.ops.aten.convolution_backward(
            self.cast(gy), x, weight, None, stride, padding, dilation, False, [0, 0], 1, wanted
        )


class InstanceNorm:
    """y = w·x̂ + b with x̂ = r·(x - mean x), r = (var x + eps)^(-1/2), per image and channel.

    Every derivative of it is, for each image and channel, a linear combination of a few maps with
    scalar coefficients that come from their means and products: few passes over memory.
    """

    def __init__(self, layer: nn.GroupNorm, p: Parameters) -> None:
        self.eps, (self.weight, self.bias) = layer.eps, p

    def forward(self, x: Tensor) -> Tensor:
        self.centered = x - per_map(mean(x))
        variance = mean(self.centered * self.centered)
        # Adds zero; but a variance that overflowed gives NaN, not a map that silently vanishes.
        self.r = (variance + self.eps).rsqrt_().add_(variance, alpha=0.0)
        self.means: tuple[Tensor, Tensor] | None = None
        return combine(self.bias.expand_as(self.r), (self.r * self.weight, self.centered))

    def input_gradient(self, gy: Tensor) -> Tensor:
        s0, s1 = self._means(gy)
        scale = self.weight * self.r
        return combine(-scale * s0, (-scale * s1 * self.r, self.centered), (scale, gy))

    def parameter_gradients(self, gy: Tensor) -> Parameters:
        s0, s1 = self._means(gy)
        pixels = gy.shape[-2] * gy.shape[-1]
        return s1.sum(0) * pixels, s0.sum(0) * pixels

    def tangent(self, x_dot: Tensor | None, p_dot: Parameters) -> Tensor:
        weight_dot, bias_dot = (part.unsqueeze(1) for part in p_dot)  # [directions, 1, channels]
        if x_dot is None:
            x_dot = torch.zeros_like(self.centered).expand(len(weight_dot), *self.centered.shape)
        self.x_dot = x_dot
        self.tangent_means: tuple[Tensor, Tensor] | None = None
        self.p0, self.p1 = mean(x_dot), mean(x_dot * self.centered) * self.r
        scale = self.weight * self.r
        # d(w·r)/dt: what multiplies the centred gradient; ṙ = -r²·p1
        self.scale_dot = weight_dot * self.r - scale * self.r * self.p1
        return combine(bias_dot - scale * self.p0, (self.scale_dot, self.centered), (scale, x_dot))

    def tangent_input_gradient(self, gy: Tensor, gy_dot: Tensor) -> Tensor:
        (s0, s1), (t0, t1) = self._means(gy), self._tangent_means(gy, gy_dot)
        scale = self.weight * self.r
        bend = scale * s1 * self.r
        constant = -self.scale_dot * s0 - scale * t0 + bend * self.p0
        centered = self.r * (bend * self.p1 - self.scale_dot * s1 - scale * t1)
        return combine(
            constant,
            (centered, self.centered),
            (scale, gy_dot),
            (self.scale_dot, gy),
            (-bend, self.x_dot),
        )

    def tangent_parameter_gradients(self, gy: Tensor, gy_dot: Tensor) -> Parameters:
        t0, t1 = self._tangent_means(gy, gy_dot)
        pixels = gy.shape[-2] * gy.shape[-1]
        return t1.sum(1) * pixels, t0.sum(1) * pixels

    def _means(self, gy: Tensor) -> tuple[Tensor, Tensor]:
        """mean(gy) and mean(gy·x̂), [batch, channels]; kept for the later steps."""
        if self.means is None:
            self.means = mean(gy), mean(gy * self.centered) * self.r
        return self.means

    def _tangent_means(self, gy: Tensor, gy_dot: Tensor) -> tuple[Tensor, Tensor]:
        """Their tangents, [directions, batch, channels]."""
        if self.tangent_means is None:
            s0, s1 = self._means(gy)
            moved = mean(gy * self.x_dot) - self.p0 * s0 - self.p1 * s1
            self.tangent_means = (
                mean(gy_dot),
                (mean(gy_dot * self.centered) + moved) * self.r,
            )
        return self.tangent_means


class Linear:
    """y = x·Wᵀ + b."""

    def __init__(self, p: Parameters, cast: Cast) -> None:
        self.cast, self.dtype = cast, p[0].dtype
        self.weight, self.bias = cast(p[0]), p[1] if len(p) > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        self.x = self.cast(x)
        y = (self.x @ self.weight.T).to(self.dtype)
        return y if self.bias is None else y + self.bias

    def input_gradient(self, gy: Tensor) -> Tensor:
        return (self.cast(gy) @ self.weight).to(self.dtype)

    def parameter_gradients(self, gy: Tensor) -> Parameters:
        weight = (self.cast(gy).T @ self.x).to(self.dtype)
        return (weight,) if self.bias is None else (weight, gy.sum(0))

    def tangent(self, x_dot: Tensor | None, p_dot: Parameters) -> Tensor:
        self.weight_dot = self.cast(p_dot[0])  # [directions, out, in]
        self.x_dot = None if x_dot is None else self.cast(x_dot)
        y_dot = self.x @ self.weight_dot.mT
        if self.x_dot is not None:
            y_dot = y_dot + self.x_dot @ self.weight.T
        y_dot = y_dot.to(self.dtype)
        return y_dot if self.bias is None else y_dot + p_dot[1].unsqueeze(1)

    def tangent_input_gradient(self, gy: Tensor, gy_dot: Tensor) -> Tensor:
        return (self.cast(gy_dot) @ self.weight + self.cast(gy) @ self.weight_dot).to(self.dtype)

    def tangent_parameter_gradients(self, gy: Tensor, gy_dot: Tensor) -> Parameters:
        weight = self.cast(gy_dot).mT @ self.x
        if self.x_dot is not None:
            weight = weight + self.cast(gy).T @ self.x_dot
        weight = weight.to(self.dtype)
        return (weight,) if self.bias is None else (weight, gy_dot.sum(1))
