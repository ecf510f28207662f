"""`python -m bench.prepare dataset=cifar10`: download, verify, whiten and cache a data set; with
`objective=mtt` and settings of a run, train the expert trajectories of that run too.

Run it once on a machine with internet access; compute nodes often have none.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from bench.config.command_line import command, only, parse, setting
from bench.config.grid import single_run
from bench.config.objectives import UNROLLED
from bench.config.run_config import Environment, RunConfig
from bench.config.without_effect import refuse_without_effect
from bench.system.files import new_folder
from bench.system.machine import default_threads

USAGE = """
python -m bench.prepare dataset=NAME [data_root=PATH]    download if missing, whiten, cache
python -m bench.prepare dataset=NAME objective=mtt ...   and train the experts of such a run
"""


@dataclass(frozen=True)
class PrepareOptions:
    """Options of this command."""

    download: bool = setting(True, "download the data set if it is not under data_root")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, PrepareOptions, RunConfig, Environment)
    options = PrepareOptions(**only(given, PrepareOptions))
    environment = Environment(**only(given, Environment))
    settings = only(given, RunConfig)
    config = single_run(given.get("scale", "paper"), settings)
    refuse_without_effect([config], settings)

    import torch

    from bench.data import DATASETS, download, find_source
    from bench.objectives import make_objective
    from bench.training.setup import choose_device, load_data, make_network, settle_process

    data_root = Path(environment.data_root)
    missing = find_source(config.dataset, data_root) is None
    # If torchvision cannot download it, `load_data` fails with where to download it by hand.
    if options.download and missing and DATASETS[config.dataset].torchvision:
        print(f"downloading {config.dataset} to {data_root} ...", flush=True)
        with new_folder(data_root, "data folder"):
            download(config.dataset, data_root)
    started = time.perf_counter()
    print("decoding and whitening, or reading the cache ...", flush=True)
    target_set = load_data(config, environment, torch.device("cpu"))
    print(
        f"{target_set.source}: {len(target_set.train)} train, {len(target_set.validation)}"
        f" validation, {len(target_set.test)} test images of"
        f" {'x'.join(map(str, target_set.image_shape))}, {len(target_set.classes)} classes,"
        f" fingerprint {target_set.fingerprint} ({time.perf_counter() - started:.1f} s)"
    )
    if config.objective == UNROLLED:
        return 0
    settle_process()
    device = choose_device(environment.device)
    torch.set_num_threads(environment.threads or default_threads())
    target_set = target_set.to(device, target_set.train.images.dtype)
    cache_root = Path(environment.cache_root)
    objective = make_objective(config, target_set, make_network(config, target_set), cache_root)
    if objective:
        objective.prepare(lambda text: print(text, flush=True))
    return 0


if __name__ == "__main__":
    command(main, USAGE, PrepareOptions, RunConfig, Environment)
