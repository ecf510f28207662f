"""Layers without parameters: ReLU, pools, flatten."""

import torch
from torch import Tensor, nn

from bench.metagrad.rules.application import Parameters
from bench.metagrad.rules.maps import layout_of, pair, shaped_like


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
