"""Panels that each show the same curves under another condition, such as an inner optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from analysis.labels import Variant, flat_settings
from bench.config.objectives import OBJECTIVES, UNROLLED
from bench.config.run_config import RunConfig
from methods.look import (
    BLACK,
    BLUE,
    DASH_DOT_DOTTED,
    DASH_DOTTED,
    DASHED,
    DOTTED,
    GREEN,
    LONG_DASHED,
    PURPLE,
    SKY_BLUE,
    SOLID,
    VERMILION,
    Look,
)

V = TypeVar("V", bound=Variant)


@dataclass(frozen=True)
class FacetCurve(Variant):
    """A curve that several panels have, with its look in all of them."""

    look: Look


@dataclass(frozen=True)
class Facets:
    """A figure of such panels. A run belongs to the first panel and the first curve whose settings
    it has.

    Attributes:
        named: settings that the names of panels state.
        stated: further settings in which panels differ; the caption has their values.
    """

    panels: tuple[Variant, ...]
    curves: tuple[FacetCurve, ...]
    named: tuple[str, ...]
    stated: tuple[str, ...]

    def panel_of(self, config: RunConfig) -> Variant | None:
        return _first(self.panels, flat_settings(config))

    def curve_of(self, config: RunConfig) -> FacetCurve | None:
        return _first(self.curves, flat_settings(config))

    def names(self) -> tuple[Variant, ...]:
        """The name of each curve of a panel that can have it, as "BPTT from step 1 (SGD)"."""
        return tuple(
            Variant({**panel.settings, **curve.settings}, f"{curve.name} ({panel.name})")
            for panel in self.panels
            for curve in self.curves
            if all(panel.settings.get(key, v) == v for key, v in curve.settings.items())
        )


def _first(variants: tuple[V, ...], settings: Mapping[str, Any]) -> V | None:
    for variant in variants:
        if all(settings.get(key) == value for key, value in variant.settings.items()):
            return variant
    return None


def _curve(method: str, first: int, name: str, *look: Any) -> FacetCurve:
    # The option is left out of a configuration where it is 0.
    return FacetCurve({"method": method, "method_options.first": first or None}, name, Look(*look))


def _adam(name: str, eps: float, form: str) -> Variant:
    return Variant({"inner_optimizer": "adam", "inner_eps": eps, "inner_eps_form": form}, name)


FIRST_STEPS = Facets(
    panels=(
        _adam("Adam, ε = 1e-8 (torch)", 1e-8, "torch"),
        _adam("Adam, ε = 1e-8 (higher)", 1e-8, "higher"),
        _adam("Adam, ε = 1e-8 (published)", 1e-8, "published"),
        _adam("Adam, ε = 1e-4 (torch)", 1e-4, "torch"),
        Variant({"inner_optimizer": "sgd"}, "SGD with momentum"),
    ),
    curves=(
        _curve("bptt", 0, "BPTT", BLUE, DASHED, "s"),
        _curve("bptt", 1, "BPTT from step 1", VERMILION, LONG_DASHED, "v"),
        _curve("bptt", 2, "BPTT from step 2", GREEN, DASH_DOT_DOTTED, "P"),
        _curve("bptt", 5, "BPTT from step 5", SKY_BLUE, DASH_DOTTED, "^"),
        _curve("rat_bptt", 0, "RaT-BPTT", BLACK, SOLID, "o"),
        _curve("rat_bptt", 1, "RaT-BPTT from step 1", PURPLE, DOTTED, "D"),
    ),
    named=("inner_optimizer", "inner_eps", "inner_eps_form"),
    stated=(
        *("inner_lr", "inner_momentum", "inner_weight_decay"),
        *("inner_decay_steps", "inner_decay_factor"),
        *("evaluation_optimizer", "evaluation_lr"),
    ),
)

RIVALS = Facets(
    panels=(
        Variant({"parameterization": "pixels", "learn_labels": False}, "Pixels, hard labels"),
        Variant({"parameterization": "pixels", "learn_labels": True}, "Pixels, learned labels"),
        Variant({}, "Images decoded from shared parts"),
    ),
    curves=(
        FacetCurve({"parameterization": "linear"}, "LinBa (BPTT)", Look(BLUE, DASHED, "s")),
        FacetCurve({"parameterization": "idc"}, "IDC (DSA)", Look(PURPLE, SOLID, "P")),
        FacetCurve({"parameterization": "haba"}, "HaBa (MTT)", Look(GREEN, LONG_DASHED, "D")),
        FacetCurve(
            {"objective": UNROLLED, "method": "rat_bptt"}, "RaT-BPTT", Look(BLACK, SOLID, "o")
        ),
        FacetCurve(
            {"objective": UNROLLED, "method": "bptt", "method_options.first": 1},
            "BPTT from step 1",
            Look(VERMILION, LONG_DASHED, "s"),
        ),
        *(
            FacetCurve({"objective": name}, options.label, options.look)
            for name, options in OBJECTIVES.items()
        ),
    ),
    named=("parameterization", "learn_labels", "objective"),
    stated=(),
)
