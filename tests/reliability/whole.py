"""Whether the files of a run are whole, at whatever moment its process was killed."""

import zipfile
from pathlib import Path

import safetensors.torch
from PIL import Image

from bench.runs.run_folder import RunFolder


def check_whole(folder: Path) -> None:
    """Every file in a run's folder is whole, or a temporary one."""
    if not folder.exists():
        return
    damages = RunFolder(folder).small_files().damages
    assert set(damages) <= {"config"}, damages
    assert not damages or not (folder / "config.json").exists(), damages
    for name in ("metrics", "measurements"):
        RunFolder(folder).records(name)
    for path in folder.glob("checkpoint*.pt"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    for path in folder.glob("distilled.safetensors"):
        assert safetensors.torch.load_file(path)
    for path in folder.glob("distilled.png"):
        with Image.open(path) as picture:
            picture.load()
