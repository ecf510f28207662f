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

A layer applied to a batch is an `Application`: it stores what the later steps need. Tangents have
a leading dimension [directions]: what depends on x and gy only is computed once for all directions.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

Parameters = tuple[Tensor, ...]
Cast = Callable[[Tensor], Tensor]


class Application(Protocol):
    """One layer applied to one batch. The methods are the steps above, called in this order. The
    first layer needs no input gradient; the tangent steps may be repeated with other ṗ."""

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
