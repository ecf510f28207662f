"""What the paper's published code computes: a warm-up by `torch.optim.Adam` (eps after the bias
correction), and a window by `higher` (eps before it), which takes over the optimizer's state.

These two, one after the other, and nothing of the project's engines.
"""

import copy

import higher
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.metagrad import Adam, MetaGradient, Problem
from bench.metagrad.problem import StepRange


def published_meta_gradient(
    problem: Problem, window: StepRange, target: tuple[Tensor, Tensor]
) -> MetaGradient:
    """The meta-gradient of the cross-entropy; the optimizer's `eps_form` is not looked at."""
    adam = problem.optimizer
    assert isinstance(adam, Adam)
    network = copy.deepcopy(problem.network).to(problem.images)
    network.load_state_dict(problem.parameters)
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=adam.lr,
        betas=(adam.beta1, adam.beta2),
        eps=adam.eps,
        weight_decay=adam.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, list(adam.decay_steps), adam.decay_factor
    )
    for t in range(window.start):
        images, labels = problem.inner_batch(t, problem.images, problem.labels)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        schedule.step()
    images = problem.images.clone().requires_grad_()
    labels = problem.labels.clone().requires_grad_(problem.learn_labels)
    with higher.innerloop_ctx(network, optimizer) as (unrolled, differentiable):
        for state in differentiable.state[0].values():
            # Today's torch counts in float32, in which `higher` would round the bias corrections.
            state["step"] = int(state["step"])
        for t in range(window.start, window.stop):
            batch = problem.inner_batch(t, images, labels)
            lr = adam.lr * adam.decay_factor ** len([s for s in adam.decay_steps if s <= t])
            loss = F.cross_entropy(unrolled(batch[0]), batch[1])
            differentiable.step(loss, override={"lr": [lr]})
        loss = F.cross_entropy(unrolled(target[0]), target[1])
        learned = (images, labels) if problem.learn_labels else (images,)
        images_bar, *rest = torch.autograd.grad(loss, learned)
    return MetaGradient(images_bar, rest[0] if rest else None, loss.detach())
