"""Reads a dataset folder back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryogem.config import SimulateConfig, build_config, read_config_file
from cryogem.dataset import layout
from cryogem.errors import InputError
from cryogem.imaging.calibration import Calibration
from cryogem.io.files import read_json
from cryogem.io.mrc import read_micrograph, read_own_volume
from cryogem.records import Micrograph
from cryogem.specimen.ensemble import Ensemble, build_ensemble
from cryogem.specimen.volume import PreparedVolume, measure_diameter


@dataclass(frozen=True)
class SimulatedDataset:
    """A finished simulate run: its settings, its specimen and what was measured for it."""

    folder: Path
    config: SimulateConfig
    calibration: Calibration
    manifest: dict[str, Any]

    def read_record(self, name: str) -> Micrograph:
        """Return the ground truth of one micrograph."""
        return read_record(self.folder, name)

    def read_pair(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (h, w) clean image, contrast units, and (h, w) bool mask of one micrograph.

        Raises
        ------
        InputError : the run was told to write neither, or in other pixels than it works with.
        """
        if self.config.output_sampling != 'working':
            raise InputError(f'dataset {str(self.folder)!r} was made with output_sampling original; '
                             'simulate with output_sampling working to train on it')
        missing = {'clean', 'masks'} - set(self.config.formats)
        if missing:
            raise InputError(f'dataset {str(self.folder)!r} was made without {" and ".join(sorted(missing))}; '
                             'simulate with formats that hold clean and masks')
        clean, _ = read_micrograph(layout.clean_path(self.folder, name), self.calibration.pixel_size)
        mask, _ = read_micrograph(layout.instance_mask_path(self.folder, name), self.calibration.pixel_size)
        return clean, mask > 0

    def load_ensemble(self, device: str | torch.device = 'cpu') -> Ensemble:
        """Return the maps of the run, as they were projected."""
        weights = [split_weight(volume)[1] for volume in self.config.volume]
        return load_ensemble(self.folder, self.calibration, weights, device)


def load_ensemble(
    folder: Path, calibration: Calibration, weights: Sequence[float] | None = None, device: str | torch.device = 'cpu',
) -> Ensemble:
    """Return the maps of a dataset folder, as they were projected.

    Parameters
    ----------
    weights : of the maps; default: the same for all.
    """
    n_maps = len(list((folder / 'specimen').glob('volume_*.mrc')))
    volumes = []
    for index in range(n_maps):
        density, mask = (read_own_volume(path(folder, index))[0] for path in (layout.volume_path, layout.mask_path))
        diameter = measure_diameter(mask, calibration.pixel_size)
        volumes.append(PreparedVolume(density, mask, calibration.pixel_size, diameter))
    return build_ensemble(volumes, weights or [1.0] * n_maps, device)


def read_dataset(folder: Path) -> SimulatedDataset:
    """Read a finished simulate run.

    Raises
    ------
    InputError : the folder is none, or the run was not finished.
    """
    if not (folder / layout.MANIFEST).exists():
        raise InputError(f'dataset {str(folder)!r} holds no finished simulate run; '
                         'give the output folder of cryogem simulate')
    values = read_config_file(folder / layout.CONFIG)
    manifest = read_json(folder / layout.MANIFEST, 'dataset')
    if manifest.get('command') != 'simulate':
        raise InputError(f'dataset {str(folder)!r} holds a {manifest.get("command")} run; '
                         'give the output folder of cryogem simulate')
    return SimulatedDataset(folder, build_config(SimulateConfig, values), read_calibration(folder, 'dataset'), manifest)


def read_calibration(folder: Path, key: str) -> Calibration:
    """Read calibration.json of a folder given for the setting `key`."""
    return Calibration.from_json(read_json(folder / layout.CALIBRATION, key))


def read_record(folder: Path, name: str) -> Micrograph:
    """Return the ground truth of one micrograph of a dataset folder."""
    return read_finished(folder, name)[0]


def read_finished(folder: Path, name: str) -> tuple[Micrograph, dict[str, str]]:
    """Return the ground truth of one micrograph of a dataset folder, and the checksums of its files by their paths."""
    values = read_json(layout.record_path(folder, name), 'dataset')
    return Micrograph.from_json(values['record']), values['checksums']


def read_grey_values(folder: Path, record: Micrograph) -> np.ndarray:
    """Return the (h, w) float32 grey values of a micrograph, whatever the type it is stored as."""
    stored, _ = read_micrograph(layout.micrograph_path(folder, record.name), record.pixel_size)
    return stored * np.float32(record.stored_scale) + np.float32(record.stored_offset)


def split_weight(volume: str) -> tuple[str, float]:
    """Split ``MAP[:WEIGHT]``; the weight is 1 where none is said."""
    path, separator, weight = volume.rpartition(':')
    if separator:
        try:
            return path, float(weight)
        except ValueError:
            pass
    return volume, 1.0
