"""Layers, each with its first and second derivatives written out.

The engine differentiates the gradient of a training loss once more, in one direction. It does so by
forward-over-reverse, layer by layer, without autograd. Dots mark tangents (derivatives in that
direction): parameters p move with ṗ, the batch stays where it is. For each layer y = f(x; p), and
with the gradients of the loss written gy = ∂ℓ/∂y and so on:

    1. forward:            x            -> y
    2. backward:           gy           -> gx, gp
    3. tangent forward:    ẋ, ṗ         -> ẏ
    4. tangent backward:   ġy, ẋ, ṗ     -> ġx, ġp

At the end ġp is the Hessian-vector product and the first layer's ġx is the mixed derivative with
respect to the batch. Torch's own route to the same numbers, the double backward of its layers, is
composed of many elementwise passes for a norm and of slow kernels for a convolution.

A layer applied to a batch is an `Application`: it remembers what the later steps need and nothing
else. Tangents carry a leading dimension [directions]: what depends on x and gy only is then
computed once for all directions.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Parameters = tuple[Tensor, ...]
Cast = Callable[[Tensor], Tensor]


class Application(Protocol):
    """One layer at work on one batch: the methods are the steps above, called in this order. The
    first layer goes without input gradients; the tangent steps may be taken again with other ṗ."""

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, ...] -> y."""
        ...

    def input_gradient(self, gy: Tensor) -> Tensor:
        """gy, shaped like y -> gx, shaped like x."""
        ...

    def parameter_gradients(self, gy: Tensor) -> Parameters:
        """gy -> gp, shaped like the parameters."""
        ...

    def tangent(self, x_dot: Tensor | None, p_dot: Parameters) -> Tensor | None:
        """ẋ [directions, *x.shape] or None for zero, ṗ [directions, *p.shape] -> ẏ."""
        ...

    def tangent_input_gradient(self, gy: Tensor, gy_dot: Tensor) -> Tensor:
        """gy, ġy [directions, *y.shape] -> ġx."""
        ...

    def tangent_parameter_gradients(self, gy: Tensor, gy_dot: Tensor) -> Parameters:
        """gy, ġy -> ġp [directions, *p.shape]."""
        ...


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
        self.centred = x - per_map(mean(x))
        variance = mean(self.centred * self.centred)
        # Adds zero; but a variance that overflowed gives NaN, not a map that silently vanishes.
        self.r = (variance + self.eps).rsqrt_().add_(variance, alpha=0.0)
        self.means: tuple[Tensor, Tensor] | None = None
        return combine(self.bias.expand_as(self.r), (self.r * self.weight, self.centred))

    def input_gradient(self, gy: Tensor) -> Tensor:
        s0, s1 = self._means(gy)
        scale = self.weight * self.r
        return combine(-scale * s0, (-scale * s1 * self.r, self.centred), (scale, gy))

    def parameter_gradients(self, gy: Tensor) -> Parameters:
        s0, s1 = self._means(gy)
        pixels = gy.shape[-2] * gy.shape[-1]
        return s1.sum(0) * pixels, s0.sum(0) * pixels

    def tangent(self, x_dot: Tensor | None, p_dot: Parameters) -> Tensor:
        weight_dot, bias_dot = (part.unsqueeze(1) for part in p_dot)  # [directions, 1, channels]
        if x_dot is None:
            x_dot = torch.zeros_like(self.centred).expand(len(weight_dot), *self.centred.shape)
        self.x_dot = x_dot
        self.tangent_means: tuple[Tensor, Tensor] | None = None
        self.p0, self.p1 = mean(x_dot), mean(x_dot * self.centred) * self.r
        scale = self.weight * self.r
        # d(w·r)/dt: what multiplies the centred gradient; ṙ = -r²·p1
        self.scale_dot = weight_dot * self.r - scale * self.r * self.p1
        return combine(bias_dot - scale * self.p0, (self.scale_dot, self.centred), (scale, x_dot))

    def tangent_input_gradient(self, gy: Tensor, gy_dot: Tensor) -> Tensor:
        (s0, s1), (t0, t1) = self._means(gy), self._tangent_means(gy, gy_dot)
        scale = self.weight * self.r
        bend = scale * s1 * self.r
        constant = -self.scale_dot * s0 - scale * t0 + bend * self.p0
        centred = self.r * (bend * self.p1 - self.scale_dot * s1 - scale * t1)
        return combine(
            constant,
            (centred, self.centred),
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
            self.means = mean(gy), mean(gy * self.centred) * self.r
        return self.means

    def _tangent_means(self, gy: Tensor, gy_dot: Tensor) -> tuple[Tensor, Tensor]:
        """Their tangents, [directions, batch, channels]."""
        if self.tangent_means is None:
            s0, s1 = self._means(gy)
            moved = mean(gy * self.x_dot) - self.p0 * s0 - self.p1 * s1
            self.tangent_means = (
                mean(gy_dot),
                (mean(gy_dot * self.centred) + moved) * self.r,
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


class WithoutParameters:
    """What linear and piecewise linear layers have in common: x enters their derivative through the
    choice of a piece at most, so that ġx is the same map of ġy as gx is of gy."""

    def input_gradient(self, gy: Tensor) -> Tensor:
        """gy, with or without a leading [directions]."""
        raise NotImplementedError

    def parameter_gradients(self, gy: Tensor) -> Parameters:
        return ()

    def tangent_input_gradient(self, gy: Tensor, gy_dot: Tensor) -> Tensor:
        return self.input_gradient(gy_dot)

    def tangent_parameter_gradients(self, gy: Tensor, gy_dot: Tensor) -> Parameters:
        return ()


class ReLU(WithoutParameters):
    """y = max(x, 0), with derivative 0 at 0, as in torch."""

    def forward(self, x: Tensor) -> Tensor:
        self.y = x.relu()
        return self.y

    def input_gradient(self, gy: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward(gy, self.y, 0)

    def tangent(self, x_dot: Tensor | None, p_dot: Parameters) -> Tensor | None:
        return None if x_dot is None else self.input_gradient(x_dot)


class AveragePool(WithoutParameters):
    """Means over windows, without padding."""

    def __init__(self, layer: nn.AvgPool2d) -> None:
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        self.like = shaped_like(x, 0)  # of no size
        return self.layer(x)

    def input_gradient(self, gy: Tensor) -> Tensor:
        flat = gy.flatten(0, -4)
        size, stride = pair(self.layer.kernel_size), pair(self.layer.stride)
        gx = torch.ops.aten.avg_pool2d_backward(
            flat, shaped_like(self.like, len(flat)), size, stride, [0, 0], False, True, None
        )
        return gx.unflatten(0, gy.shape[:-3])

    def tangent(self, x_dot: Tensor | None, p_dot: Parameters) -> Tensor | None:
        if x_dot is None:
            return None
        return self.layer(x_dot.flatten(0, 1)).unflatten(0, x_dot.shape[:2])


class MaxPool(WithoutParameters):
    """Maxima over windows. Each y is the x that won its window, among equals the one that torch
    takes, and its derivative is that x's. Winners are kept in two bytes each."""

    def __init__(self, layer: nn.MaxPool2d) -> None:
        sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        self.geometry = (*(pair(size) for size in sizes), layer.ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        self.like = shaped_like(x, 0)  # of no size
        y, winner = torch.ops.aten.max_pool2d_with_indices(x, *self.geometry)
        # Numbers of pixels within a map.
        self.winner = winner.to(torch.int16 if x.shape[-2] * x.shape[-1] < 2**15 else torch.int32)
        return y

    def input_gradient(self, gy: Tensor) -> Tensor:
        flat = gy.flatten(0, -4)
        winner = self.winner.expand(*gy.shape[:-4], *self.winner.shape).flatten(0, -4)
        gx = torch.ops.aten.max_pool2d_with_indices_backward(
            flat, shaped_like(self.like, len(flat)), *self.geometry, winner.long()
        )
        return gx.unflatten(0, gy.shape[:-3])

    def tangent(self, x_dot: Tensor | None, p_dot: Parameters) -> Tensor | None:
        if x_dot is None:
            return None
        maps, winner = x_dot.flatten(-2), self.winner.flatten(-2).long()  # [..., channels, pixels]
        winner = winner.expand(*x_dot.shape[:-4], *winner.shape)
        if layout_of(self.like) == torch.channels_last:
            # The same in the order of memory, so that the result lies like x_dot.
            y_dot = maps.mT.gather(-2, winner.mT).mT
        else:
            y_dot = maps.gather(-1, winner)
        return y_dot.unflatten(-1, self.winner.shape[-2:])


class Flatten(WithoutParameters):
    """[batch, ...] -> [batch, features]."""

    def forward(self, x: Tensor) -> Tensor:
        self.shape, self.layout = x.shape[1:], layout_of(x)
        return x.flatten(1)

    def input_gradient(self, gy: Tensor) -> Tensor:
        maps = gy.unflatten(-1, self.shape)
        flat = maps.flatten(0, -4).contiguous(memory_format=self.layout)
        return flat.unflatten(0, maps.shape[:-3])

    def tangent(self, x_dot: Tensor | None, p_dot: Parameters) -> Tensor | None:
        return None if x_dot is None else x_dot.flatten(2)


def mean(maps: Tensor) -> Tensor:
    """Mean over the pixels: [..., channels, height, width] -> [..., channels]."""
    # On a CPU several times as fast as Tensor.mean.
    return maps.sum((-2, -1)).div_(maps.shape[-2] * maps.shape[-1])


def per_map(scalars: Tensor) -> Tensor:
    """[..., channels] -> [..., channels, 1, 1], to meet maps."""
    return scalars[..., None, None]


def combine(
    constant: Tensor, first: tuple[Tensor, Tensor], *terms: tuple[Tensor, Tensor]
) -> Tensor:
    """constant + Σ coefficient·maps: scalars [..., batch, channels], maps [..., height, width]."""
    coefficient, maps = first
    total = torch.addcmul(per_map(constant), per_map(coefficient), maps)
    for coefficient, maps in terms:
        total.addcmul_(per_map(coefficient), maps)
    return total


def layout_of(x: Tensor) -> torch.memory_format:
    """How a batch of maps lies in memory."""
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format


def shaped_like(x: Tensor, batch: int, channels: int | None = None) -> Tensor:
    """Stands in for an input of another size: the backward kernels that ask for an input read its
    shape and layout, never its values."""
    shape = (batch, channels or x.shape[1], *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))


def pair(size: int | tuple[int, int]) -> list[int]:
    """A kernel size or stride as [height, width]."""
    return [size, size] if isinstance(size, int) else list(size)
