"""Batches of training slices: which, in what order, and how each is changed, all from the seed alone.

Nothing random here has a memory: the order depends on (seed, epoch), a slice's augmentation on (seed, epoch,
row). So neither the number of worker processes nor an interruption changes what is trained on.
"""

import os
from collections.abc import Callable, Iterator
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from brainseg_cli.augment import Augment, build_augment
from brainseg_cli.config import Config
from brainseg_cli.data.manifest import Dataset
from brainseg_cli.training.squares import Squares

Rows = npt.NDArray[np.int64]


def choose_rows(rows: Rows, has_tumour: npt.NDArray[np.bool_], share: float, seed: int, epoch: int) -> Rows:
    """The rows an epoch sees, shuffled.

    `share` 0 takes all. Otherwise every slice with tumour once, and as many others, drawn anew each epoch
    without repeats, as make tumour slices `share` of the whole (all of them where there are too few).
    """
    rng = np.random.default_rng([seed, epoch])
    if share > 0 and has_tumour.any():
        marked, empty = rows[has_tumour], rows[~has_tumour]
        wanted = min(len(empty), round(len(marked) * (1 - share) / share))
        rows = np.concatenate([marked, rng.choice(empty, wanted, replace=False)])
    return rng.permutation(rows)


def cut_batches(rows: Rows, batch_size: int) -> list[Rows]:
    """Consecutive batches of at most `batch_size`, as even as can be, so that none is a single leftover."""
    return np.array_split(rows, max(1, -(-len(rows) // batch_size)))


def find_smallest_batch(dataset: Dataset, config: Config) -> int:
    """Slices in the smallest batch of an epoch."""
    return min(len(rows) for _, rows in _build_sampler(dataset, config))


class EpochSampler(Sampler[tuple[int, Rows]]):
    """Yields (epoch, rows) for each batch of the epoch that is set, from the batch `start` on."""

    def __init__(self, rows: Rows, has_tumour: npt.NDArray[np.bool_], config: Config) -> None:
        self.rows, self.has_tumour, self.config = rows, has_tumour, config
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[tuple[int, Rows]]:
        return iter([(self.epoch, rows) for rows in self._batches()])

    def _batches(self) -> list[Rows]:
        train = self.config.train
        rows = choose_rows(self.rows, self.has_tumour, train.tumour_share, train.seed, self.epoch)
        return cut_batches(rows, train.batch_size)[self.start :]


class SliceBatches(TorchDataset[tuple[torch.Tensor, torch.Tensor]]):
    """(epoch, rows) -> images uint8 (N, size, size, C) and masks uint8 (N, size, size), augmented.

    Of a batch of `total` rows those in `share(total)` are loaded; every one where `share` is None.
    """

    def __init__(self, dataset: Dataset, config: Config, share: Callable[[int], slice] | None = None) -> None:
        self.config, self.share = config, share
        self.squares = Squares(dataset, config.preprocess)

    @cached_property
    def augment(self) -> Augment:
        return build_augment(self.config.augment, self.squares.dataset.info.channel_names)

    def __getstate__(self) -> dict[str, object]:
        """Without `augment`, which every worker process builds for itself."""
        return {"config": self.config, "share": self.share, "squares": self.squares}

    def __getitem__(self, batch: tuple[int, Rows]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, rows = batch
        if self.share is not None:
            rows = rows[self.share(len(rows))]
        size, channels = self.config.preprocess.size, len(self.squares.dataset.info.channel_names)
        images = np.empty((len(rows), size, size, channels), np.uint8)
        masks = np.empty((len(rows), size, size), np.uint8)
        for place, row in enumerate(rows.tolist()):
            draw = int(np.random.SeedSequence([self.config.train.seed, epoch, row]).generate_state(1)[0])
            images[place], masks[place] = self.augment(self.squares.image(row), self.squares.mask(row), draw)
        return torch.from_numpy(images), torch.from_numpy(masks)


def build_loader(
    dataset: Dataset,
    config: Config,
    *,
    workers: int,
    pin_memory: bool,
    share: Callable[[int], slice] | None = None,
) -> tuple[DataLoader[tuple[torch.Tensor, torch.Tensor]], EpochSampler]:
    """The train split as batches, and the sampler whose `epoch` says which. 0 workers load in this process.

    With `share` the loader gives that part of each batch, of all of whose rows the sampler still tells.
    """
    sampler = _build_sampler(dataset, config)
    if workers:
        _be_one_thread()  # a forked worker would wait for ever for OpenCV's threads, which it does not inherit
    loader: DataLoader[tuple[torch.Tensor, torch.Tensor]] = DataLoader(
        SliceBatches(dataset, config, share),
        batch_size=None,  # the sampler hands out whole batches
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_begin_worker if workers else None,
    )
    return loader, sampler


def _build_sampler(dataset: Dataset, config: Config) -> EpochSampler:
    rows = dataset.rows("train")
    return EpochSampler(rows, dataset.slices["tumour_px"].to_numpy()[rows] > 0, config)


def _begin_worker(_worker: int) -> None:
    """In a process group of its own: a signal to all of a group is for the loop alone, which needs it a while yet."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    _be_one_thread()


def _be_one_thread() -> None:
    cv2.setNumThreads(1)
