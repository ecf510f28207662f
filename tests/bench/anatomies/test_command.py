"""`python -m bench.anatomy`: what it records, that it resumes, and that it is the engine's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.anatomies.folder import AnatomyFolder, finished_anatomies
from bench.anatomies.measure import Measurer
from bench.anatomies.options import starts_of
from bench.anatomy import main
from bench.config.command_line import parse
from bench.config.read_settings import AnatomySettings
from bench.config.run_config import Environment, RunConfig
from bench.evaluation.interpretation import SubjectOptions
from bench.metagrad import make_engine
from bench.runs.subject import set_up
from bench.system.errors import UserError
from bench.training.batches import target_batch
from bench.training.problem import outer_problem
from bench.training.randomness import derive_seed
from bench.training.setup import make_inner_optimizer, make_network
from tests.conftest import read_by

Run = Callable[..., AnatomyFolder]
SMALL = ["stops=3", "starts=4", "networks=3", "variance_networks=1", "unroll_length=6"]
WINDOWS = 2 + 4 + 6  # stops 2, 4, 6, and every start before them


@pytest.fixture
def arguments(tmp_path: Path, cache_root: Path, tiny: list[str]) -> list[str]:
    images = np.random.default_rng(0).random((10, 1, 8, 8))
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(10))
    where = [f"results_root={tmp_path / 'results'}", f"cache_root={cache_root}"]
    tiny = [text for text in tiny if not text.startswith("unroll_length")]
    tiny = read_by(AnatomySettings, tiny)
    return [f"distilled={tmp_path / 'set.npz'}", *where, *tiny, *SMALL, "starts=6"]


@pytest.fixture
def run(arguments: list[str], tmp_path: Path) -> Run:
    """Runs the command and returns the folder that it wrote."""

    def measured(*more: str) -> AnatomyFolder:
        before = set(finished_anatomies(tmp_path / "results"))
        assert main([*arguments, *more]) == 0
        after = finished_anatomies(tmp_path / "results")
        new = [one for one in after if one.path not in {each.path for each in before}]
        return new[0] if new else after[0]

    return measured


def untimed(folder: AnatomyFolder) -> Any:
    """Everything that was computed, without times."""
    result = folder.read("result")
    assert result is not None
    windows = [{**window, "seconds": 0} for window in result["windows"]]
    records = [{**record, "seconds": 0} for record in folder.records()]
    return json.dumps([result["networks"], windows, records])  # text: NaN equals NaN


def test_it_records_every_window_of_every_network(run: Run, capsys) -> None:
    folder = run()
    records = folder.records()
    assert len(records) == 3 * WINDOWS
    assert [record["network"] for record in records] == [0] * WINDOWS + [1] * WINDOWS + [
        2
    ] * WINDOWS
    own = [(record["start"], record["stop"]) for record in records[:WINDOWS]]
    assert own == [(start, stop) for stop in (2, 4, 6) for start in range(stop)]
    measured = [record["network"] for record in records if record["normalized_variance"]]
    assert measured == [0] * WINDOWS
    result, settings = folder.read("result"), folder.read("settings")
    manifest = folder.read("manifest")
    assert result is not None
    assert settings is not None
    assert manifest is not None
    assert (result["networks"], len(result["windows"])) == (3, WINDOWS)
    assert settings["state"] == ["m", "v"]
    assert folder.config().unroll_length == 6
    assert manifest["threads"] == torch.get_num_threads()
    printed = capsys.readouterr().out
    for text in (
        "12 windows of a trajectory of 6 inner steps (adam, lr 0.01, float32): 3 stops x 6 starts",
        "network  3 of 3: outer loss",
        "pure noise has SNR 0.33",
        f"recorded in {folder.path}",
    ):
        assert text in printed


@pytest.mark.parametrize(
    "settings",
    [
        ["inner_eps=1e-3"],
        ["inner_eps=1e-3", "inner_eps_form=published"],
        ["inner_optimizer=sgd", "inner_momentum=0.9", "inner_lr=0.1", "learn_labels=true"],
    ],
    ids=["adam", "published", "sgd, learned labels"],
)
def test_the_records_are_those_of_the_engines_own_gradients(
    run: Run, arguments: list[str], settings: list[str]
) -> None:
    folder = run("precision=float64", *settings)
    subject = set_up(
        parse(
            [
                *(text for text in arguments if text.split("=")[0] not in ANATOMY),
                *(*settings, "precision=float64"),
            ],
            *(SubjectOptions, RunConfig, Environment),
        )
    )
    assert subject.images is not None
    assert subject.labels is not None
    config = subject.config
    seed = derive_seed(config.seed, "anatomy")
    drawn = RunConfig(**{**vars(config), "seed": seed})
    network, optimizer = make_network(config, subject.target_set), make_inner_optimizer(config)
    flat: dict[tuple[int, int, int], torch.Tensor] = {}
    for k in range(3):
        problem = outer_problem(
            drawn, network, optimizer, subject.images, subject.labels, k, config.unroll_length
        )
        batch = target_batch(drawn, subject.target_set.train, k)
        for stop in (2, 4, 6):
            for start in range(stop):
                own = make_engine("exact").meta_gradient(problem, range(start, stop), *batch)
                parts = [own.images, *([] if own.labels is None else [own.labels])]
                flat[k, start, stop] = torch.cat([part.flatten() for part in parts])
    for record in folder.records():
        k, start, stop = record["network"], record["start"], record["stop"]
        gradient, of_stop, full = flat[k, start, stop], flat[k, 0, stop], flat[k, 0, 6]
        assert record["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-10)
        for name, other in (("cosine_to_stop", of_stop), ("cosine_to_full", full)):
            cosine = torch.cosine_similarity(gradient, other, dim=0).item()
            assert record[name] == pytest.approx(cosine, abs=1e-10)
        pixels = gradient[: subject.images.numel()].view(10, -1)
        assert record["image_gradient_norm"] == pytest.approx(pixels.norm(dim=1).mean().item())
    result = folder.read("result")
    assert result is not None
    for window in result["windows"]:
        rows = torch.stack([flat[k, window["start"], window["stop"]] for k in range(3)])
        snr = rows.mean(dim=0).square().sum() / rows.square().sum(dim=1).mean()
        assert window["snr"] == pytest.approx(snr.item(), rel=1e-10)
        norms = rows.norm(dim=1)
        assert window["gradient_norm_mean"] == pytest.approx(norms.log().mean().exp().item())
        assert window["gradient_norm_std"] == pytest.approx(norms.log().std().exp().item())


ANATOMY = ("stops", "starts", "networks", "variance_networks", "force")


@pytest.mark.parametrize(("kill", "done"), [("in a network", 2), ("before the records are", 3)])
def test_interrupted_and_resumed_it_is_the_same_bit_for_bit(
    run: Run,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill: str,
    done: int,
) -> None:
    other = f"results_root={tmp_path / 'other'}"
    measure = Measurer.network
    measured: list[int] = []

    def network(self: Measurer, k: int) -> Any:
        if k == 2 and kill == "in a network":
            raise KeyboardInterrupt
        measured.append(k)
        return measure(self, k)

    def write_finished(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Measurer, "network", network)
        patched.setattr(AnatomyFolder, "write_finished", write_finished)
        with pytest.raises(KeyboardInterrupt, match="the same command resumes after"):
            main([*arguments, other])
    assert finished_anatomies(tmp_path / "other") == []
    assert measured == list(range(done))
    measured.clear()
    with monkeypatch.context() as patched:
        patched.setattr(Measurer, "network", lambda self, k: measured.append(k) or measure(self, k))
        assert main([*arguments, other]) == 0
        assert main([*arguments, other]) == 0  # nothing is left to do
        assert measured == list(range(done, 3))
    (resumed,) = finished_anatomies(tmp_path / "other")
    manifest = resumed.read("manifest")
    assert manifest is not None
    assert [start["networks_done"] for start in manifest["starts"]] == [0, done]
    assert untimed(resumed) == untimed(run())


def test_more_networks_are_added_to_those_that_are_done(run: Run, tmp_path: Path) -> None:
    few = run("networks=2")
    done = few.records()
    more = run("networks=3")
    assert more.path == few.path
    assert more.records()[: len(done)] == done
    assert len(more.records()) == 3 * WINDOWS
    whole = untimed(more)
    assert untimed(run("networks=2")) == whole  # there are three, and n says so
    again = run("force=true")
    assert untimed(again) == whole
    manifest = again.read("manifest")
    assert manifest is not None
    assert manifest["starts"][-1]["networks_done"] == 0


def test_an_interrupted_extension_leaves_what_was_finished(
    run: Run, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = run("networks=2")
    finished = two.records()
    measure = Measurer.network

    def network(self: Measurer, k: int) -> Any:
        if k == 3:
            raise KeyboardInterrupt
        return measure(self, k)

    with monkeypatch.context() as patched:
        patched.setattr(Measurer, "network", network)
        with pytest.raises(KeyboardInterrupt, match="the same command resumes after"):
            main([*arguments, "networks=4"])
    assert two.records() == finished
    # The same command again takes what was measured meanwhile, and says n.
    three = run("networks=2")
    assert len(three.records()) == 3 * WINDOWS
    result = three.read("result")
    assert result is not None
    assert result["networks"] == 3


def test_other_settings_have_another_folder(run: Run) -> None:
    names = [run(*more).name for more in ([], ["precision=float64"], ["stops=2"], ["seed=1"])]
    assert len(set(names)) == 4
    assert all(name.startswith("set-") for name in names)


def test_random_real_images_have_an_anatomy_too(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments[1:], "distilled=real_images", "networks=1"]) == 0
    (folder,) = finished_anatomies(tmp_path / "results")
    assert folder.name.startswith("real_images-")
    assert all(record["gradient_norm"] > 0 for record in folder.records())
    result = folder.read("result")
    assert result is not None
    assert result["windows"][0]["gradient_norm_std"] is None  # n = 1


def test_a_variance_needs_two_samples(arguments: list[str]) -> None:
    few = ["variance_every=0", "variance_samples=1"]
    with pytest.raises(UserError, match="variance_samples=1 must be at least 2; variance_networks"):
        main([*arguments, *few])
    assert main([*arguments, *few, "variance_networks=0", "networks=1"]) == 0


@pytest.mark.parametrize("target_batch", [1, 3])
def test_a_variance_of_more_samples_than_target_images_is_refused(
    arguments: list[str], target_batch: int
) -> None:
    small = [*arguments, "variance_every=0", f"target_batch={target_batch}"]
    with pytest.raises(UserError, match=f"variance_samples=4 is more than .*={target_batch},"):
        main(small)
    assert main([*small, "variance_networks=0", "networks=1"]) == 0


def test_a_trajectory_shorter_than_the_first_starts_has_no_start_beyond_it(run: Run) -> None:
    assert starts_of(4, 2) == [0, 1, 2, 3]
    assert starts_of(100, 3) == [0, 1, 2, 3, 4, 5, 50, 99]
    few = ["unroll_length=4", "starts=2", "variance_networks=0", "networks=1"]
    folder = run(*few, "inner_eps_form=published")
    assert max(record["start"] for record in folder.records()) == 3


def test_two_processes_do_not_measure_the_same(run: Run, arguments: list[str]) -> None:
    folder = run("networks=1")
    with folder.lock(), pytest.raises(UserError, match="is being measured by another process"):
        main([*arguments, "networks=2"])


def test_the_published_form_is_announced(run: Run, capsys) -> None:
    run("inner_eps_form=published", "networks=1", "variance_networks=0")
    assert "the trajectory depends on where the window starts" in capsys.readouterr().out
    run("inner_eps_form=higher", "networks=1", "variance_networks=0")
    assert "the trajectory depends on where" not in capsys.readouterr().out


def test_an_anatomy_takes_settings_of_the_inner_optimizer_that_an_evaluation_refuses(
    arguments: list[str], run: Run
) -> None:
    # An anatomy trains as the inner loop does; an evaluation with an optimizer of its own does not.
    sgd = ["inner_optimizer=sgd", "inner_lr=0.05", "evaluation_optimizer=adam"]
    own = [text for text in arguments if text.partition("=")[0] not in ANATOMY]
    given = parse([*own, *sgd, "evaluation_lr=0.01"], SubjectOptions, RunConfig, Environment)
    assert set_up(given, "anatomy", evaluates=False).config.inner_lr == 0.05
    with pytest.raises(UserError, match=r"has no effect: networks are evaluated with"):
        set_up(given)


def test_settings_that_an_anatomy_does_not_read_are_refused(arguments: list[str]) -> None:
    for setting in ("outer_steps=3", "engine=higher", "evaluation_networks=3"):
        with pytest.raises(UserError, match="has no effect on this command"):
            main([*arguments, setting])


def test_a_set_of_a_rival_needs_a_trajectory(arguments: list[str]) -> None:
    own = [text for text in arguments if "window_size" not in text and "unroll" not in text]
    with pytest.raises(UserError, match="objective=dm has no trajectory: add objective=unrolled"):
        main([*own, "objective=dm"])
