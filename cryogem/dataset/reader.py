"""Reads a dataset folder back."""

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
from cryogem.io.mrc import read_micrograph, read_volume
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
        """Return (h, w) clean image, contrast units, and (h, w) bool mask of one micrograph."""
        clean, _ = read_micrograph(layout.clean_path(self.folder, name), self.calibration.pixel_size)
        mask, _ = read_micrograph(layout.instance_mask_path(self.folder, name), self.calibration.pixel_size)
        return clean, mask > 0

    def load_ensemble(self, device: str | torch.device = 'cpu', is_compiled: bool = False) -> Ensemble:
        """Return the maps of the run, as they were projected; arguments as for `build_ensemble`."""
        weights = [split_weight(volume)[1] for volume in self.config.volume]
        volumes = []
        for index in range(len(weights)):
            density, pixel_size = read_volume(layout.volume_path(self.folder, index))
            mask, _ = read_volume(layout.mask_path(self.folder, index), pixel_size)
            volumes.append(PreparedVolume(density, mask, self.calibration.pixel_size,
                                          measure_diameter(mask, self.calibration.pixel_size)))
        return build_ensemble(volumes, weights, device, is_compiled)


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
    return Micrograph.from_json(read_json(layout.record_path(folder, name), 'dataset')['record'])


def split_weight(volume: str) -> tuple[str, float]:
    """Split ``MAP[:WEIGHT]``; the weight is 1 where none is said."""
    path, separator, weight = volume.rpartition(':')
    if separator:
        try:
            return path, float(weight)
        except ValueError:
            pass
    return volume, 1.0
