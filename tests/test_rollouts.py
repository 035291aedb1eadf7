"""Episodes on disk, the frames that V learns from, and the pieces that M learns from."""

import threading
import weakref

import numpy as np
import pytest
import tiny
import torch

from utils.runtime.errors import UserError
from utils.storage.artifacts import save_arrays
from utils.storage.provenance import game
from utils.world_model import episodes
from utils.world_model.episodes import batches_of_frames, load_rollout, save_rollout
from utils.world_model.latents import Encoding, encode, load_latents
from utils.world_model.sequences import Sequence, batches, load_sequences, pieces


def numbered(folder, lengths):
    """Rollouts in whose every frame a number of its own is written; frames are T + 1."""
    paths, first = [], 0
    for i, length in enumerate(lengths):
        arrays = tiny.episode(length, i)
        arrays["obs"][:] = 0
        numbers = np.arange(first, first := first + length + 1, dtype=np.uint32)
        arrays["obs"].reshape(length + 1, -1)[:, :4] = numbers[:, None].view(np.uint8)
        paths.append(folder / f"{i}.npz")
        save_rollout(paths[-1], arrays)
    return paths


def numbers(batch):
    return batch.reshape(len(batch), -1)[:, :4].copy().view(np.uint32)[:, 0].tolist()


def all_batches(paths, batch, pool, workers, seed=0):
    rng = np.random.default_rng(seed)
    return [numbers(b) for b in batches_of_frames(paths, batch, pool, rng, workers)]


# Episodes on disk


def test_an_episode_comes_back_as_it_was(tmp_path):
    arrays = tiny.episode(9)
    mark = save_rollout(tmp_path / "x.npz", arrays, driver="random", seed=3)
    header, found = load_rollout(tmp_path / "x.npz")
    origin = {"driver": "random", "seed": 3, "versions": game()}
    assert header == {"kind": "rollout", **origin, "fingerprint": mark}
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == {
        "obs": ((10, 64, 64, 3), "uint8"), "action": ((9, 3), "float32"),
        "reward": ((9,), "float32"), "terminated": ((9,), "bool"),
    }  # fmt: skip
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize(("name", "change"), [
    ("obs", lambda a: a[:-1]),
    ("obs", lambda a: a.astype(np.float32)),
    ("obs", lambda a: a[:, :, :, :1]),
    ("action", lambda a: a[:-1]),
    ("action", lambda a: a.astype(np.float64)),
    ("reward", lambda a: a[:, None]),
    ("terminated", lambda a: a.astype(np.uint8)),
    ("terminated", None),
])  # fmt: skip
def test_arrays_that_do_not_belong_together_are_refused(tmp_path, name, change):
    arrays = tiny.episode(5)
    value = arrays.pop(name)
    if change:
        arrays[name] = change(value)
    save_rollout(tmp_path / "x.npz", arrays)
    with pytest.raises(UserError, match=r"x\.npz .*delete it and run python 01_collect_rollouts"):
        load_rollout(tmp_path / "x.npz")


def test_an_episode_without_actions_and_foreign_arrays_are_refused(tmp_path):
    save_rollout(tmp_path / "empty.npz", {n: a[:0] for n, a in tiny.episode(5).items()})
    save_rollout(tmp_path / "more.npz", {**tiny.episode(5), "more": np.zeros(3)})
    save_arrays(tmp_path / "latents.npz", "latents", tiny.episode(5))
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=path.name):
            load_rollout(path)


def test_latents_of_another_length_are_refused(tmp_path):
    arrays = tiny.episode(5)
    del arrays["obs"]
    sound = {"mu": np.zeros((6, 4), np.float32), "logvar": np.zeros((6, 4), np.float32), **arrays}
    origin = {"rollout": "r", "vae": "v"}
    save_arrays(tmp_path / "sound.npz", "latents", sound, made_from=origin)
    assert load_latents(tmp_path / "sound.npz")[1]["mu"].shape == (6, 4)
    for name, shape in (("mu", (5, 4)), ("logvar", (6, 3)), ("mu", (6, 4, 1))):
        save_arrays(
            tmp_path / "x.npz", "latents", {**sound, name: np.zeros(shape, np.float32)},
            made_from=origin,
        )  # fmt: skip
        with pytest.raises(UserError, match=r"x\.npz .*03_encode_dataset"):
            load_latents(tmp_path / "x.npz")


def test_the_fingerprint_of_a_folder_is_that_of_its_episodes(tmp_path):
    tiny.save_episodes(tmp_path, [4, 5])
    paths, mark = episodes.rollouts(tmp_path)
    assert [path.name for path in paths] == ["random_000.npz", "random_001.npz"]
    (tmp_path / "random_002.tmp.1.npz").write_bytes(b"half-written")
    assert episodes.rollouts(tmp_path) == (paths, mark)
    save_rollout(paths[1], tiny.episode(5, seed=9))
    assert episodes.rollouts(tmp_path)[1] != mark


# Frames for V


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("pool", [1, 2, 99])
def test_every_frame_comes_once_up_to_the_last_incomplete_batch(tmp_path, workers, pool):
    paths = numbered(tmp_path, [7, 12, 3, 20, 9])  # 56 frames
    found = all_batches(paths, 10, pool, workers)
    assert [len(batch) for batch in found] == [10] * 5
    seen = [number for batch in found for number in batch]
    assert len(set(seen)) == 50
    assert set(seen) <= set(range(56))
    assert seen != sorted(seen)


def test_frames_are_the_same_for_any_number_of_threads_and_others_in_every_epoch(tmp_path):
    paths = numbered(tmp_path, [7, 12, 3, 20, 9])
    found = [all_batches(paths, 8, 2, workers) for workers in (0, 1, 4)]
    assert found[0] == found[1] == found[2]
    assert all_batches(paths, 8, 2, 0, seed=1) != found[0]


def test_frames_of_different_episodes_meet_in_a_batch(tmp_path):
    paths = numbered(tmp_path, [49] * 4)
    found = all_batches(paths, 50, pool=4, workers=0)
    assert all(len({number // 50 for number in batch}) == 4 for batch in found)


@pytest.mark.parametrize(("workers", "most"), [(0, 0), (2, 3)])
def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch, workers, most):
    """Beside the pool's shuffled frames, at most the next pool is in memory."""
    paths = numbered(tmp_path, [30] * 12)
    loaded, lock = [], threading.Lock()

    def load(path):
        header, arrays = load_rollout(path)
        with lock:
            loaded.append(weakref.ref(arrays["obs"]))
        return header, arrays

    monkeypatch.setattr(episodes, "load_rollout", load)
    alive = []
    for _ in batches_of_frames(paths, 10, 3, np.random.default_rng(0), workers):
        alive.append(sum(reference() is not None for reference in loaded))
    assert len(loaded) == 12
    assert max(alive) <= most


def test_a_damaged_episode_stops_the_reading_by_name(tmp_path):
    paths = numbered(tmp_path, [9, 9, 9])
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"1\.npz"):
            all_batches(paths, 4, 1, workers)


# Pieces for M


def sequence(length, first=0.0):
    """One whose every number says when it was."""
    time = torch.arange(first, first + length + 1)
    ends = torch.zeros(length)
    ends[-1] = 1
    return Sequence(
        time[:, None].repeat(1, 2), -time[:, None].repeat(1, 2), time[:-1, None].repeat(1, 3),
        time[:-1] / 10, ends,
    )  # fmt: skip


def test_sequences_are_the_latents_on_disk(tmp_path):
    (path,) = tiny.save_episodes(tmp_path / "rollouts", [11])
    target = tmp_path / "latents" / path.name
    encode(Encoding(str(path), str(target), "mark"), vae=tiny.networks()[0])
    _, arrays = load_latents(target)
    for workers in (0, 2):
        (found,) = load_sequences([target], workers)
        for name in Sequence._fields:
            assert np.array_equal(getattr(found, name).numpy(), arrays[name])
            assert getattr(found, name).dtype == torch.float32


def test_batches_hold_every_episode_once_beside_others_of_its_length():
    sequences = [sequence(length) for length in (900, 10, 20, 890, 30, 910, 15)]
    found = batches(sequences, 4, np.random.default_rng(0))
    lengths = [sorted(len(s.action) for s in group) for group in found]
    assert sorted(lengths) == [[10, 15, 20, 30], [890, 900, 910]]
    firsts = {len(batches(sequences, 4, np.random.default_rng(i))[0]) for i in range(20)}
    assert firsts == {3, 4}  # short ones do not always come first


def test_pieces_cover_every_episode_in_order_with_one_frame_more_of_z():
    group = [sequence(23), sequence(7, 100.0), sequence(10, 200.0)]
    found = list(pieces(group, 10))
    assert [tuple(mask.shape) for _, mask in found] == [(3, 10), (3, 10), (3, 3)]
    assert sum(mask.sum() for _, mask in found) == 23 + 7 + 10
    for row, episode in enumerate(group):
        kept = [mask[row].bool() for _, mask in found]
        for name in ("action", "reward", "terminated"):
            parts = [getattr(p, name)[row][k] for (p, _), k in zip(found, kept, strict=True)]
            assert torch.equal(torch.cat(parts), getattr(episode, name))
        for name in ("mu", "logvar"):
            now = [getattr(p, name)[row, :-1][k] for (p, _), k in zip(found, kept, strict=True)]
            then = [getattr(p, name)[row, 1:][k] for (p, _), k in zip(found, kept, strict=True)]
            assert torch.equal(torch.cat(now), getattr(episode, name)[:-1])
            assert torch.equal(torch.cat(then), getattr(episode, name)[1:])


def test_padding_is_masked_and_holds_zeros():
    (piece,) = pieces([sequence(5, 1.0), sequence(2, 1.0)], 10)
    assert piece.mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert piece.sequence.mu[1, 3:].abs().sum() == 0
    assert piece.sequence.action[1, 2:].abs().sum() == 0
    assert piece.sequence.terminated[1].tolist() == [0, 1, 0, 0, 0]


def test_an_episode_of_exactly_the_length_is_one_piece():
    assert len(list(pieces([sequence(20)], 20))) == 1
    assert len(list(pieces([sequence(21)], 20))) == 2
