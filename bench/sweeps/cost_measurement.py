"""What the parts of a run cost, measured within a number of seconds.

No outer step is measured whole: a long window could take minutes, or all memory. Measured are outer
steps of a few inner steps, and what one inner step more of a kind adds. Where even these take too
long, they are measured with fewer images, and what images take is scaled to their number: networks
treat images one by one.

The images are random (`placeholder_data.py`): their content changes no time, and the data need not
be there.
"""

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.identity import images_per_class
from bench.config.objectives import UNROLLED
from bench.config.run_config import RunConfig
from bench.data import Split, TargetSet
from bench.distillation.outer_loop import Distillation
from bench.evaluation.fresh_networks import Trainee, accuracy, evaluate_trainees
from bench.metagrad import MeanLoss, make_derivatives
from bench.metagrad.flat import map_bytes, multiply_adds
from bench.metagrad.mean_loss import PART_BYTES
from bench.networks import initial_parameters
from bench.sweeps.cost_model import Linear, Steps, Trained, fit
from bench.sweeps.meter import REPEAT_SECONDS, Meter
from bench.sweeps.placeholder_data import measured_images, sizes
from bench.training.randomness import torch_generator
from bench.training.setup import make_inner_optimizer, make_network
from methods import StatelessMethod, Window

FEW = 4  # inner steps more, to see what one costs
SAMPLES = 10  # single-sample losses at a time
IMAGE_COPIES = 6  # that turning and flipping a target batch takes for a while

# Shares of the time. An image's forward pass and gradient count as one pass, and a step of the
# window, with its product of second derivatives, as four.
SHARES = {"steps": 0.25, "target": 0.1, "variance": 0.2, "evaluation": 0.25, "kept": 0.2}
PASSES = {"steps": 32, "kept": 80, "evaluation": 7}


class OneWindow(StatelessMethod):
    """Not a method: the window that is measured."""

    def __init__(self, steps: Steps) -> None:
        super().__init__(steps.warm_up + steps.window, steps.window)
        self.window = Window(steps.warm_up, self.unroll_length)

    def next_window(self, step: int, rng: Any) -> Window:
        return self.window


class Measurement:
    """The parts of one run, measured.

    Args:
        budget: bytes of activations that the run may keep.
        seconds: how long all of it may take, roughly.

    Attributes:
        inner_batch: images in an inner batch.
        scaled: some part was measured with fewer images than the run takes.
    """

    def __init__(
        self, config: RunConfig, target_set: TargetSet, budget: int, seconds: float
    ) -> None:
        # A boosted set is measured as if all blocks were there from the beginning: an upper bound.
        self.config, self.target_set, self.seconds = (
            replace(config, boost_block=0),
            target_set,
            seconds,
        )
        self.device = target_set.train.images.device
        self.meter = Meter(self.device, min(REPEAT_SECONDS, seconds / 100))
        self.scaled = False
        self.distillation = one = Distillation(self.config, target_set, 0)
        self.classes = len(target_set.classes)
        self.inner_batch = min(self.config.inner_classes or self.classes, self.classes) * (
            self.config.inner_ipc or images_per_class(self.config)
        )
        self.loss, self.theta = self._loss_and_theta(one.network)
        state = make_inner_optimizer(self.config).initial_state(self.theta)
        self.copies_bytes = (2 + len(state)) * self.theta.nbytes  # parameters, gradient, state
        image = one.images[:1].clone(), one.labels[:1].clone()
        self.image_bytes = max(self.loss.linearization_bytes(self.theta, *image), 1)
        keeps = self.config.engine == "exact" and self.config.objective == UNROLLED
        self.affordable = budget // (self.inner_batch * self.image_bytes) if keeps else 0
        batch = one.images[:FEW].clone(), one.labels[:FEW].clone()
        gradient = self.meter.measure(lambda: self.loss.gradient(self.theta, *batch))
        self.pass_seconds = gradient[0] / len(batch[0])

    def _loss_and_theta(self, network: nn.Module) -> tuple[MeanLoss, Tensor]:
        parameters = initial_parameters(network, torch_generator(self.config.seed, "estimate"))
        loss = MeanLoss(make_derivatives(network))
        images = self.distillation.images
        return loss, loss.derivatives.flatten(
            {k: value.to(images) for k, value in parameters.items()}
        )

    # --- how many images

    def _within(self, seconds: float, passes: float, most: int) -> int:
        """How many images, up to `most`, can go through so many passes, twice."""
        each = 2 * passes * self.pass_seconds
        count = most if each * most <= seconds else max(1, min(most, int(seconds / each)))
        self.scaled |= count < most
        return count

    def _smaller(self, config: RunConfig, count: int) -> tuple[RunConfig, float]:
        """`config` with about `count` images in an inner batch; and how many times as many the
        run's own has."""
        if count >= self.inner_batch:
            return config, 1.0
        classes = min(count, config.inner_classes or self.classes)
        ipc = count // classes
        smaller = replace(config, inner_classes=classes, inner_ipc=ipc)
        return smaller, self.inner_batch / (classes * ipc)

    def _part_bytes(self, factor: float) -> float:
        """What the activations of a part of a batch take more where there are `factor` times as
        many images; an allocator was seen to take twice what it is asked for."""
        most = max(PART_BYTES.get(self.device.type, PART_BYTES["cpu"]), 4 * self.theta.nbytes)
        whole = self.inner_batch * self.image_bytes
        return 2 * (min(whole, most) - min(whole / factor, most))

    # --- the outer step

    def outer_step(self) -> tuple[Linear, Linear]:
        """Seconds and footprint of an outer step that keeps nothing.

        What an inner step adds is seen with a single target image; the target batch takes as long
        at every window, and is measured once. That of another objective is measured whole.
        """
        if self.config.objective != UNROLLED:
            seconds, n_bytes = self.meter.measure(self.distillation.outer_step)
            return Linear(seconds), Linear(n_bytes)
        count = self._within(
            SHARES["steps"] * self.seconds, self.config.replicas * PASSES["steps"], self.inner_batch
        )
        config, factor = self._smaller(replace(self.config, target_batch=1), count)
        points = (Steps(0, 1), Steps(FEW, 1), Steps(0, 1 + FEW))
        measured = {steps: self._outer_step(config, steps) for steps in points}
        seconds = fit({steps: value[0] for steps, value in measured.items()})
        n_bytes = fit({steps: value[1] for steps, value in measured.items()}, self.copies_bytes)
        target_seconds, target_bytes = self._target_batch(config, measured[points[0]])
        if self.config.engine == "exact":
            n_bytes = replace(n_bytes, constant=n_bytes.constant + self._part_bytes(factor))
        else:  # a graph of the whole window
            n_bytes = replace(n_bytes, window=n_bytes.window * factor)
        return (
            Linear(
                seconds.constant + target_seconds,
                seconds.warm_up * factor,
                seconds.window * factor,
            ),
            replace(n_bytes, constant=n_bytes.constant + target_bytes),
        )

    def _target_batch(self, config: RunConfig, of_one: tuple[float, int]) -> tuple[float, float]:
        """Seconds and bytes that the whole target batch adds to a single image of it."""
        whole = min(self.config.target_batch, sizes(self.config)["train"])
        fitting = self._within(SHARES["target"] * self.seconds, self.config.replicas, whole)
        count = min(whole, max(fitting, 2))  # one is what it is compared with
        some = self._outer_step(replace(config, target_batch=count), Steps(0, 1))
        seconds, n_bytes = (max(a - b, 0.0) for a, b in zip(some, of_one, strict=True))
        if count < whole:
            seconds *= (whole - 1) / max(count - 1, 1)
            if self.config.engine == "exact":  # part by part: only the images become more
                image = self.target_set.train.images[0]
                n_bytes += IMAGE_COPIES * (whole - count) * image.nbytes
            else:
                n_bytes *= (whole - 1) / max(count - 1, 1)
        return seconds, n_bytes

    def _outer_step(
        self, config: RunConfig, steps: Steps, activation_budget: int = 0
    ) -> tuple[float, int]:
        variant = self.distillation.variant(config, OneWindow(steps), activation_budget)
        return self.meter.measure(variant.outer_step)

    def kept_step(self) -> tuple[float, float]:
        """Seconds that a step saves (negative) and bytes that it adds where its activations are
        kept. To be measured last: an allocator does not give everything back."""
        if not self.affordable:
            return 0.0, 0.0
        count = self._within(
            SHARES["kept"] * self.seconds, self.config.replicas * PASSES["kept"], self.inner_batch
        )
        config, factor = self._smaller(replace(self.config, target_batch=1), count)
        steps = Steps(0, 1 + FEW)
        kept_steps = min(steps.window, self.affordable)
        budget = int(kept_steps * self.inner_batch / factor * self.image_bytes)
        without, with_kept = (self._outer_step(config, steps, b) for b in (0, budget))
        saved_seconds, added_bytes = (
            factor * (b - a) / kept_steps for a, b in zip(without, with_kept, strict=True)
        )
        if factor > 1:  # few images find room in memory that was freed before
            added_bytes = max(added_bytes, self.inner_batch * self.image_bytes)
        return min(saved_seconds, 0.0), max(added_bytes, 0.0)

    def variance(self, warm_up: float) -> tuple[Linear, Linear]:
        """Seconds and footprint of the variance over samples. The gradient of the whole batch, by
        which it is divided, is the outer step's own.

        Args:
            warm_up: seconds of a step of the warm-up, which is that of an outer step.
        """
        samples = min(SAMPLES, self.config.variance_samples)
        # A product for every sample in each step of two windows.
        passes = (2 + FEW) * (2 + 2 * samples)
        count = self._within(SHARES["variance"] * self.seconds, passes, self.inner_batch)
        config, factor = self._smaller(replace(self.config, variance_samples=samples), count)
        measured = {}
        for steps in (Steps(0, 1), Steps(0, 1 + FEW)):
            variant = self.distillation.variant(config, OneWindow(steps))
            measured[steps] = self.meter.measure(variant.sample_variance)
        line = fit({steps: value[0] for steps, value in measured.items()})
        times = self.config.variance_samples / samples
        seconds = Linear(times * line.constant, warm_up, times * line.window * factor)
        n_bytes = fit({steps: value[1] for steps, value in measured.items()}, self.copies_bytes)
        # The gradients of all samples, one by one and then together.
        sample = self.theta.nbytes + self.distillation.images.nbytes
        more = 2 * (self.config.variance_samples - samples) * sample + self._part_bytes(factor)
        return seconds, replace(n_bytes, constant=n_bytes.constant + more)

    # --- evaluation

    def evaluation(self, config: RunConfig, share: float) -> tuple[Trained, float]:
        """A fresh network on the distilled set, and the footprint.

        Args:
            config: the run's, or one that names another network.
            share: of the time for evaluations.
        """
        images, labels = self.distillation.images, self.distillation.labels
        return self._evaluation(config, images, labels, 0, share)

    def evaluation_of_all(self, share: float) -> tuple[Trained, float]:
        """The same on the full training set."""
        train = self.target_set.train
        labels = F.one_hot(train.labels, self.classes).to(train.images)
        batch = min(self.config.full_train_batch_size, len(train))
        return self._evaluation(self.config, train.images, labels, batch, share)

    def _evaluation(
        self, config: RunConfig, images: Tensor, labels: Tensor, batch_size: int, share: float
    ) -> tuple[Trained, float]:
        network = make_network(config, self.target_set)
        operations = multiply_adds(self.distillation.network, images[0])
        work = multiply_adds(network, images[0]) / operations  # beside the run's network
        seconds = SHARES["evaluation"] * self.seconds * share
        whole = batch_size or self.inner_batch
        count = self._within(seconds / 2, PASSES["evaluation"] * work, whole)
        smaller, factor = (config, whole / count) if batch_size else self._smaller(config, count)
        one = {
            name: replace(part, images=part.images[:1], labels=part.labels[:1])
            for name in ("train", "validation", "test")
            for part in [getattr(self.target_set, name)]
        }
        nothing_to_measure = replace(self.target_set, **one)
        footprints = []

        def train(networks: int, steps: int) -> float:
            batch = count if batch_size else 0
            trainees = [Trainee(images, labels, (k,), batch) for k in range(networks)]
            seconds, n_bytes = self.meter.measure(
                lambda: evaluate_trainees(
                    smaller, nothing_to_measure, trainees, [steps], "estimate"
                )
            )
            footprints.append(n_bytes)
            return seconds / networks

        few = train(1, 1)
        # Networks that are trained at once take less time each, and more memory.
        networks = config.evaluation_networks if few < REPEAT_SECONDS and factor == 1 else 1
        if networks > 1:
            few = train(networks, 1)
        step = max(train(networks, 1 + FEW) - few, 0.0) / FEW
        measuring, n_bytes = self._accuracy(network, seconds / 2, work)
        constant = max(few - step, 0.0)
        largest = max(max(footprints) + self._part_bytes(factor), n_bytes)
        return Trained(step * factor, constant + measuring), largest

    def _accuracy(self, network: nn.Module, seconds: float, work: float) -> tuple[float, float]:
        """Seconds of measuring the accuracy on the validation and the test part, and on the
        training part if it selects, and footprint."""
        loss, theta = self._loss_and_theta(network)
        test = self.target_set.test
        count = self._within(seconds, work / 3, len(test))  # a forward pass is a third

        def forward(n: int) -> tuple[float, int]:
            part = Split(test.images[:n], test.labels[:n])
            return self.meter.measure(lambda: accuracy(loss, theta, part))

        (_, bytes_of_one), (seconds_of_all, n_bytes) = forward(1), forward(count)
        per_image = (n_bytes - bytes_of_one) / max(count - 1, 1)
        each = max(per_image, 2 * map_bytes(network, test.images[0]))
        images = measured_images(self.config, self.config.selection == "train")
        return seconds_of_all * images / count, n_bytes + each * (len(test) - count)
