"""Episodes on disk, the frames that V learns from, and the chunks that M learns from."""

import threading
import weakref

import numpy as np
import pytest
import tiny
import torch

from models.mdn_rnn import MDNRNN
from utils.runtime.errors import UserError
from utils.storage.artifacts import save_arrays
from utils.storage.provenance import game
from utils.world_model import episodes, latents
from utils.world_model.chunks import batches, chunks, measure_features
from utils.world_model.episodes import batches_of_frames, load_rollout, save_rollout
from utils.world_model.latents import Encoding, Latents, encode, load_latents


def numbered(folder, lengths):
    """Rollouts in whose every frame a number of its own is written; frames are T + 1."""
    paths, first = [], 0
    for i, length in enumerate(lengths):
        episode = tiny.episode(length, i)
        episode.obs[:] = 0
        numbers = np.arange(first, first := first + length + 1, dtype=np.uint32)
        episode.obs.reshape(length + 1, -1)[:, :4] = numbers[:, None].view(np.uint8)
        paths.append(folder / f"{i}.npz")
        save_rollout(paths[-1], episode)
    return paths


def numbers(batch):
    return batch.reshape(len(batch), -1)[:, :4].copy().view(np.uint32)[:, 0].tolist()


def all_batches(paths, batch, pool, workers, seed=0):
    rng = np.random.default_rng(seed)
    return [numbers(b) for b in batches_of_frames(paths, batch, pool, rng, workers)]


# Episodes on disk


def test_an_episode_comes_back_as_it_was(tmp_path):
    episode = tiny.episode(9)
    mark = save_rollout(tmp_path / "x.npz", episode, driver="random", seed=3)
    header, found = load_rollout(tmp_path / "x.npz")
    origin = {"driver": "random", "seed": 3, "versions": game()}
    assert header == {"kind": "rollout", **origin, "frames": 9, "fingerprint": mark}
    assert {name: (a.shape, a.dtype.name) for name, a in found.arrays().items()} == {
        "obs": ((10, 64, 64, 3), "uint8"), "action": ((9, 3), "float32"),
        "reward": ((9,), "float32"), "terminated": ((9,), "bool"),
    }  # fmt: skip
    assert all(np.array_equal(a, b) for a, b in zip(found, episode, strict=True))


@pytest.mark.parametrize(("name", "change"), [
    ("obs", lambda a: a[:-1]),
    ("obs", lambda a: a.astype(np.float32)),
    ("obs", lambda a: a[:, :, :, :1]),
    ("action", lambda a: a[:-1]),
    ("action", lambda a: a.astype(np.float64)),
    ("action", lambda a: a.astype(">f4")),
    ("reward", lambda a: a[:, None]),
    ("terminated", lambda a: a.astype(np.uint8)),
    ("terminated", None),
])  # fmt: skip
def test_arrays_that_do_not_belong_together_are_refused(tmp_path, name, change):
    arrays = tiny.episode(5).arrays()
    value = arrays.pop(name)
    if change:
        arrays[name] = change(value)
    save_arrays(tmp_path / "x.npz", "rollout", arrays, versions=game())
    with pytest.raises(UserError, match=r"x\.npz .*delete it and run python 01_collect_rollouts"):
        load_rollout(tmp_path / "x.npz")


def test_an_episode_may_say_who_drove_in_every_frame(tmp_path):
    who = np.array([True, False, False, True, False])
    save_rollout(tmp_path / "x.npz", tiny.episode(5)._replace(by_agent=who))
    _, found = load_rollout(tmp_path / "x.npz")
    assert found.by_agent.dtype == bool
    assert np.array_equal(found.by_agent, who)
    for wrong in (who[1:], who.astype(np.uint8), who[:, None]):
        arrays = tiny.episode(5).arrays() | {"by_agent": wrong}
        save_arrays(tmp_path / "wrong.npz", "rollout", arrays, versions=game())
        with pytest.raises(UserError, match=r"wrong\.npz"):
            load_rollout(tmp_path / "wrong.npz")


def test_an_episode_without_actions_and_foreign_arrays_are_refused(tmp_path):
    arrays = tiny.episode(5).arrays()
    empty = {name: array[:0] for name, array in arrays.items()}
    save_arrays(tmp_path / "empty.npz", "rollout", empty, versions=game())
    more = {**arrays, "more": np.zeros(3)}
    save_arrays(tmp_path / "more.npz", "rollout", more, versions=game())
    save_arrays(tmp_path / "latents.npz", "latents", arrays, versions=game())
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=path.name):
            load_rollout(path)


def test_latents_of_another_form_are_refused(tmp_path):
    arrays = tiny.episode(5).arrays()
    del arrays["obs"]
    sound = {"mu": np.zeros((6, 4), np.float32), "logvar": np.zeros((6, 4), np.float32), **arrays}
    origin = {"made_from": {"rollout": "r", "vae": "v"}, "versions": game()}
    save_arrays(tmp_path / "sound.npz", "latents", sound, **origin)
    assert load_latents(tmp_path / "sound.npz")[1].mu.shape == (6, 4)
    for name, form in (
        ("mu", ((5, 4), "f4")), ("logvar", ((6, 3), "f4")), ("mu", ((6, 4, 1), "f4")),
        ("mu", ((6, 4), ">f4")), ("reward", ((5,), ">f4")),
    ):  # fmt: skip
        save_arrays(tmp_path / "x.npz", "latents", {**sound, name: np.zeros(*form)}, **origin)
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


def test_rollouts_that_do_not_say_how_long_they_are_are_refused(tmp_path):
    for frames in ({}, {"frames": "5"}, {"frames": None}):
        arrays = tiny.episode(5).arrays()
        save_arrays(tmp_path / "x.npz", "rollout", arrays, versions=game(), **frames)
        with pytest.raises(UserError, match=r"x\.npz does not say how long"):
            episodes.rollouts(tmp_path)


# Frames for V


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("pool", [1, 2, 99])
def test_every_frame_comes_once_up_to_the_last_incomplete_batch(tmp_path, workers, pool):
    paths = numbered(tmp_path, [7, 12, 3, 20, 9])  # 56 frames
    found = all_batches(paths, 10, pool, workers)
    assert [len(batch) for batch in found] == [10] * 5
    assert episodes.count_frames(paths) == 56
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
        header, episode = load_rollout(path)
        with lock:
            loaded.append(weakref.ref(episode.obs))
        return header, episode

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


# Chunks for M


def encoded(length, first=0.0):
    """An episode whose every number says when it was."""
    time = np.arange(first, first + length + 1, dtype=np.float32)
    ends = np.zeros(length, bool)
    ends[-1] = True
    wide = time[:, None].repeat(3, 1)
    return Latents(wide[:, :2], -wide[:, :2], wide[:-1], time[:-1] / 10, ends)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_file_of_latents_is_read_once(tmp_path, monkeypatch, workers):
    paths = tiny.save_episodes(tmp_path / "rollouts", [11, 5, 8])
    for path in paths:
        job = Encoding(str(path), str(tmp_path / "latents" / path.name), "mark")
        encode(job, vae=tiny.networks()[0])
    read = []
    plain = latents.load_arrays
    monkeypatch.setattr(latents, "load_arrays", lambda p, kind: read.append(p) or plain(p, kind))
    header = {"fingerprint": "mark", "sizes": {"latent_dim": tiny.LATENT_DIM}, "folder": "mine"}
    folders = str(tmp_path / "latents"), header, str(tmp_path / "rollouts")
    found, _ = latents.load_all(*folders, workers)
    assert [len(episode.action) for _, episode in found] == [11, 5, 8]
    assert sorted(path.name for path in read) == [path.name for path in paths]


def test_latents_of_another_v_are_encoded_again_by_the_v_at_hand(tmp_path):
    (path,) = tiny.save_episodes(tmp_path / "rollouts", [9])
    target = tmp_path / "latents" / path.name
    encode(Encoding(str(path), str(target), "mark"), vae=tiny.networks()[0])
    header = {"fingerprint": "x", "sizes": {"latent_dim": tiny.LATENT_DIM}, "folder": "mine"}
    with pytest.raises(UserError, match=r"another V; run python 03.* --checkpoints mine"):
        latents.load_some([target], header)


def test_batches_hold_every_episode_once_beside_others_of_its_length():
    episodes = [encoded(length) for length in (900, 10, 20, 890, 30, 910, 15)]
    found = batches(episodes, 4, np.random.default_rng(0))
    lengths = [sorted(len(e.action) for e in group) for group in found]
    assert sorted(lengths) == [[10, 15, 20, 30], [890, 900, 910]]
    firsts = {len(batches(episodes, 4, np.random.default_rng(i))[0]) for i in range(20)}
    assert firsts == {3, 4}  # short ones do not always come first


def test_chunks_cover_every_episode_in_order_with_one_frame_more_of_z():
    group = [encoded(23), encoded(7, 100.0), encoded(10, 200.0)]
    found = list(chunks(group, 10))
    assert [tuple(chunk.weight.shape) for chunk in found] == [(3, 10), (3, 10), (3, 3)]
    assert sum(int((chunk.weight > 0).sum()) for chunk in found) == 23 + 7 + 10
    for row, episode in enumerate(group):
        kept = [chunk.weight[row] > 0 for chunk in found]

        def joined(name, moments=slice(None), row=row, kept=kept):
            parts = [getattr(chunk, name)[row, moments] for chunk in found]
            assert all(part.dtype == torch.float32 for part in parts)
            return torch.cat([part[k] for part, k in zip(parts, kept, strict=True)]).numpy()

        for name in ("action", "reward", "terminated"):
            assert np.array_equal(joined(name), getattr(episode, name))
        for name in ("mu", "logvar"):
            assert np.array_equal(joined(name, slice(None, -1)), getattr(episode, name)[:-1])
            assert np.array_equal(joined(name, slice(1, None)), getattr(episode, name)[1:])


def test_an_end_counts_for_one_frame_however_few_episodes_are_left():
    group = [encoded(length) for length in (95, 60, 33, 8)]
    found = list(chunks(group, 10))
    ends = np.mean([float((chunk.weight * chunk.terminated).sum()) for chunk in found])
    assert ends == pytest.approx(4 / (95 + 60 + 33 + 8))
    assert np.mean([float(chunk.weight.sum()) for chunk in found]) == pytest.approx(1)


def test_padding_weighs_nothing_and_holds_zeros():
    (chunk,) = chunks([encoded(5, 1.0), encoded(2, 1.0)], 10)
    assert (chunk.weight * 7).tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert chunk.mu[1, 3:].abs().sum() == 0
    assert chunk.action[1, 2:].abs().sum() == 0
    assert chunk.terminated[1].tolist() == [0, 1, 0, 0, 0]


def test_an_episode_of_exactly_the_length_is_one_chunk():
    assert len(list(chunks([encoded(20)], 20))) == 1
    assert len(list(chunks([encoded(21)], 20))) == 2


def test_what_v_doubts_counts_as_spread_of_the_features():
    """A dimension of z that hardly moves, but is drawn, is as wide as what is drawn."""
    rng = np.random.default_rng(0)
    mu = np.stack([rng.normal(0, 2, 400), rng.normal(0, 0.05, 400)], 1).astype(np.float32)
    action = rng.random((399, 3), np.float32)
    logvar = np.full_like(mu, [-6, 0])
    latents = Latents(mu, logvar, action, action[:, 0], action[:, 0] > 2)
    rnn = MDNRNN(2, hidden=4, mixtures=2)
    for noise, wanted in ((0.0, [2, 0.05]), (1.0, [2, 1])):
        measure_features(rnn, [latents], noise)
        assert rnn.get_buffer("feature_sd")[:2].numpy() == pytest.approx(wanted, rel=0.15)
