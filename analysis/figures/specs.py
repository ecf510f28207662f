"""The figures of the paper, and those of ours: what each shows, and how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from analysis.figures.facets import FIRST_STEPS, RIVALS, Facets
from analysis.labels import Variant
from bench.config.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """One figure.

    Attributes:
        number: in the paper; 0: it is ours, and has a name.
        title: what it shows, in a line.
        grid: the grid whose runs it shows; empty if it needs none.
        remark: what a reader must know besides; continues the title in the caption.
        variants: names of runs that their method alone does not name.
        unlabeled: settings that names or the caption state, so labels omit them.
    """

    number: int = 0
    name: str = ""
    title: str
    grid: str = ""
    remark: str = ""
    variants: tuple[Variant, ...] = ()
    unlabeled: tuple[str, ...] = ()

    @property
    def key(self) -> int | str:
        """What `figure=` calls it."""
        return self.number or self.name

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"figure{self.number}" if self.number else f"figure_{self.name}"


@dataclass(frozen=True)
class PanelSpec:
    """One panel of several: the runs that share one setting and differ in another.

    Attributes:
        varying: the setting in which they differ, called `word` in the legend.
        fixed: the setting that they share, called `title` above the panel.
    """

    varying: str
    word: str
    fixed: str
    title: str


@dataclass(frozen=True, kw_only=True)
class CurveFigure(FigureSpec):
    """Curves over outer steps or over seconds, with a band over seeds.

    Attributes:
        quantity: name of the plotted quantity in the CSV.
        kind: where it is recorded: "outer step", or a kind of measurement.
        column: its column there.
        unit: factor from `column` to the plotted unit.
        y_label: with the unit, where there is one.
        log: drawn on a logarithmic axis; means and standard deviations are then geometric.
        first_steps: outer steps that are shown; 0: all.
        panels: side by side; empty: all curves in one.
        facets: panels in two columns that share a legend, instead of `panels`.
        each_seed: draws every seed's values, without `facets` in a panel per experiment: a mean
            would smooth spikes.
        x: the horizontal axis: outer steps, or the seconds of all outer steps up to that one.
    """

    quantity: str
    kind: str
    column: str
    y_label: str
    unit: float = 1.0
    log: bool = False
    first_steps: int = 0
    panels: tuple[PanelSpec, ...] = ()
    facets: Facets | None = None
    each_seed: bool = False
    x: Literal["step", "seconds"] = "step"

    @property
    def x_label(self) -> str:
        return "Outer step" if self.x == "step" else "Seconds of outer steps"


@dataclass(frozen=True, kw_only=True)
class WindowFigure(FigureSpec):
    """The windows that methods choose in the first outer steps; needs no runs.

    Attributes:
        like: the grid whose unroll length, window size and so on the methods get.
        methods: one panel each, unless `only=` names others.
        steps: outer steps.
        options: for the methods that have them, so that windows move within so few steps.
    """

    like: str
    methods: tuple[str, ...]
    steps: int
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ComparisonFigure(FigureSpec):
    """The final accuracy of each experiment, beside the paper's."""


@dataclass(frozen=True, kw_only=True)
class ImageFigure(FigureSpec):
    """The images of one distilled set, in pixel space.

    Attributes:
        shows: whether this figure shows a run of such a configuration.
        what: those runs, in words.
    """

    shows: Callable[[RunConfig], bool]
    what: str


def _accuracy(**given: Any) -> CurveFigure:
    return CurveFigure(
        quantity="test_accuracy_percent",
        kind="accuracy",
        column="test_accuracy_mean",
        unit=100.0,
        y_label="Test accuracy (%)",
        **given,
    )


def _norms(**given: Any) -> CurveFigure:
    return CurveFigure(
        quantity="image_gradient_norm",
        kind="outer step",
        column="image_gradient_norm",
        y_label="Meta-gradient norm (log scale)",
        log=True,
        first_steps=500,
        each_seed=True,
        remark=": mean over images of the norm of each image's gradient, before clipping",
        **given,
    )


OF_FIRST_STEPS: dict[str, Any] = {
    "grid": "first_steps",
    "facets": FIRST_STEPS,
    "variants": FIRST_STEPS.names(),
    "unlabeled": (*FIRST_STEPS.named, *FIRST_STEPS.stated, "method_options.first"),
}
WITH_BPTT_FROM_STEP_1: dict[str, Any] = {
    "variants": (Variant({"method": "bptt", "method_options.first": 1}, "BPTT from step 1"),),
    "unlabeled": ("method_options.first",),
}
OF_ADAPTIVE_WINDOWS: dict[str, Any] = {"grid": "adaptive_windows", **WITH_BPTT_FROM_STEP_1}
# What follows from the objective, or is one of its options.
RIVALS_UNLABELED = (
    *("outer_optimizer", "outer_lr", "init", "clipped", "ipc", "accuracy_every"),
    *("basis_downsample", "decoded_ipc", "haba_bases", "haba_hallucinators", "haba_single_channel"),
    *("inner_ipc", "method_options.first", "window_size", "unroll_length", "target_batch"),
    *("augment_target", "clipping", "init_norm", "outer_momentum", "outer_steps"),
    *("variance_samples", "outer_loss"),
)
FIGURES: dict[int | str, FigureSpec] = {
    spec.key: spec
    for spec in (
        WindowFigure(
            number=1,
            title="The inner steps that the meta-gradient flows through, outer step by outer step",
            like="window_ablation",
            methods=(
                *("bptt", "t_bptt", "r_bptt", "rat_bptt"),
                *("forward_window", "backward_window"),
            ),
            steps=12,
            options={"patience": 3, "smoothing": 0.0, "grow_steps": 11},
        ),
        _norms(
            number=2,
            title="Meta-gradient norm over the first outer steps",
            grid="methods_comparison",
            **WITH_BPTT_FROM_STEP_1,  # for grid=methods_ipc10
        ),
        _accuracy(
            number=3,
            title="Test accuracy during distillation",
            grid="methods_comparison",
            **WITH_BPTT_FROM_STEP_1,
        ),
        ComparisonFigure(
            number=4,
            title="Test accuracy with pixels or a linear parameterization at the same storage",
            grid="parameterization",
        ),
        _accuracy(
            number=5,
            title="Test accuracy during distillation, by where the window lies",
            grid="window_ablation",
            remark="; in the paper's words, the forward window starts at the end of the trajectory"
            " and the backward window at its beginning",
            variants=(
                Variant(
                    {"method": "rat_bptt", "window_resample_every": 10},
                    "Random uniform, redrawn every 10 steps",
                ),
                Variant({"method": "rat_bptt"}, "Random uniform (RaT-BPTT)"),
            ),
            unlabeled=("window_resample_every",),
        ),
        _accuracy(
            number=6,
            title="Test accuracy of RaT-BPTT during distillation, by unroll length and by window"
            " size",
            grid="unroll_and_window",
            panels=(
                PanelSpec("unroll_length", "unroll length", "window_size", "Window size"),
                PanelSpec("window_size", "window size", "unroll_length", "Unroll length"),
            ),
        ),
        CurveFigure(
            number=7,
            title="Normalized variance of the meta-gradient over the first outer steps",
            grid="methods_comparison",
            quantity="normalized_variance_whole_batch",
            kind="variance",
            column="normalized_variance_whole_batch",
            y_label="Normalized variance (log scale)",
            log=True,
            first_steps=500,
        ),
        _accuracy(
            number=8,
            title="Test accuracy during distillation with stabilized BPTT",
            grid="stabilization",
            variants=(
                Variant(
                    {"method": "bptt", "clipping": "ema", "clip_ratio": 1.05},
                    "BPTT-Gradient Clipping",
                ),
                Variant({"method": "bptt", "clipping": "unit_norm"}, "BPTT-Normalized Gradient"),
            ),
            unlabeled=(
                *("clipping", "clip_ratio", "unroll_length"),
                *("method_options.first_length", "method_options.grow_steps"),
            ),
        ),
        ImageFigure(
            number=9,
            title="Distilled images of RaT-BPTT, all distilled at once",
            grid="boosting",
            shows=lambda config: config.boost_block == 0,
            what="without boosting",
        ),
        ImageFigure(
            number=10,
            title="Distilled images of RaT-BPTT with strong boosting: earlier blocks are frozen",
            grid="boosting",
            shows=lambda config: config.boost_block > 0 and config.boost_beta == 0,
            what="with strong boosting",
        ),
        ImageFigure(
            number=11,
            title="Distilled images of RaT-BPTT with weak boosting: earlier blocks are slowed down",
            grid="boosting",
            shows=lambda config: config.boost_block > 0 and config.boost_beta > 0,
            what="with weak boosting",
        ),
        _norms(
            name="first_steps_norms",
            title="Meta-gradient norm with and without the first inner steps, by inner optimizer",
            **OF_FIRST_STEPS,
        ),
        _accuracy(
            name="first_steps",
            title="Test accuracy with and without the first inner steps, by inner optimizer",
            **OF_FIRST_STEPS,
        ),
        _accuracy(
            name="first_steps_seconds",
            title="Test accuracy with and without the first inner steps, against seconds",
            x="seconds",
            **OF_FIRST_STEPS,
        ),
        _accuracy(
            name="adaptive_windows",
            title="Test accuracy of methods that adapt their windows",
            **OF_ADAPTIVE_WINDOWS,
        ),
        _accuracy(
            name="adaptive_windows_seconds",
            title="Test accuracy of methods that adapt their windows, against seconds",
            remark=", those of probes included",
            x="seconds",
            **OF_ADAPTIVE_WINDOWS,
        ),
        _accuracy(
            name="efficiency",
            title="Test accuracy of the paper's rivals and of RaT-BPTT, against seconds",
            remark="; each has the outer optimizer and the initial images of its own paper, and"
            " HaBa on digits the storage of two images per class",
            x="seconds",
            grid="rivals",
            facets=RIVALS,
            variants=RIVALS.names(),
            unlabeled=(*RIVALS.named, *RIVALS_UNLABELED),
        ),
    )
}
