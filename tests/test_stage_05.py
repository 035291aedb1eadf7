"""Stage 05 on small settings: it begins, resumes, and refuses what it cannot drive."""

import importlib
import shutil

import numpy as np
import pytest
import tiny
from stages import FLAGS, IMITATION, contents, picture, read_log

from models.controller import FeatureScale, unpack
from models.inference import arithmetic
from utils.evolution.plan import Plan
from utils.evolution.search import Files, Search
from utils.racing.agent import Races
from utils.racing.race import Race
from utils.runtime.errors import UserError
from utils.simulator import seeds
from utils.simulator.envs import DREAM_ID, FAST_ID, STOCK_ID, make_env
from utils.storage.artifacts import load_arrays, load_header, save_arrays
from utils.storage.networks import (
    dreaming_path,
    load_agent,
    load_rnn,
    load_vae,
    save_network,
)
from utils.world_model.starts import Moments

STAGE = importlib.import_module(tiny.SCRIPTS[4])
TWO = {"fitness": "duels", "population": 8, "tracks": 2, "replayed": 1, "most_sigma": 0.15}


def test_05_leaves_the_best_mean_and_the_score_that_it_has(finished):
    folder = finished.folder / "checkpoints"
    agent = load_agent(folder)
    header = load_header(folder / "controller_evolution.npz", "evolution")
    assert agent.origin["controller_made_from"]["START"] == "zeros"
    measured = [row["select_mean"] for row in header["history"]]
    assert len(measured) == 3  # before both generations and after them
    assert header["best_score"] == max(measured)
    races = Races(FAST_ID, agent.vae, agent.rnn)
    races.start(0, Race(seeds.SELECT[0], agent.parameters))
    while not (laps := races.advance()):
        pass
    assert laps[0][1].score == header["best_score"]


def test_05_begins_at_zero_and_logs_every_generation(finished):
    folder = finished.folder / "checkpoints"
    rows = read_log(folder / "controller.csv")
    assert [row["generation"] for row in rows] == [0, 1, 2]
    env = make_env(FAST_ID)
    env.reset(seed=seeds.SELECT[0])
    score, over = 0.0, False
    while not over:  # zeros are half gas straight on
        _, reward, terminated, truncated, _ = env.step(tiny.STRAIGHT_ON_ACTION)
        score, over = score + float(reward), terminated or truncated
    assert rows[0]["select_mean"] == pytest.approx(score, abs=1e-9)
    assert 0 < rows[0]["frames"] < rows[1]["frames"]
    assert rows[0]["best"] > rows[0]["mean"]
    assert "mean" not in rows[2]  # the last one only measures
    picture(folder / "controller.png")


def test_05_refuses_to_drive_no_new_tracks(project):
    with pytest.raises(UserError, match=r"REPLAYED .*below TRACKS, 1"):
        tiny.stage(5, **FLAGS[5] | {"replayed": 1})


def test_05_resumes_and_says_so(project):
    before = read_log("checkpoints/controller.csv")
    parameters = load_agent("checkpoints").parameters
    said = tiny.stage(5, **FLAGS[5])
    assert "resuming at generation 2" in said
    assert "asks for 2: no more to evolve" in said
    assert read_log("checkpoints/controller.csv") == before
    assert np.array_equal(load_agent("checkpoints").parameters, parameters)

    said = tiny.stage(5, **FLAGS[5] | {"generations": 3})
    assert "resuming at generation 2" in said
    assert "no more" not in said
    after = read_log("checkpoints/controller.csv")
    assert after[:3] == before
    assert [row["generation"] for row in after] == [0, 1, 2, 2, 3]


@pytest.mark.slow
def test_05_goes_on_with_a_larger_population_in_duels(project):
    larger = FLAGS[5] | {"generations": 3, "population": 8, "tracks": 2, "fitness": "duels"}
    tiny.stage(5, **larger)
    rows = read_log("checkpoints/controller.csv")[-2:]  # the new generation, and where it led
    assert [row.get("population") for row in rows] == [8, None]
    header, arrays = load_arrays("checkpoints/controller_evolution.npz", "evolution")
    assert (arrays["population"], arrays["generation"]) == (8, 3)
    driven = {track for track, _ in header["driven"]} & set(seeds.evolution(2))
    assert len(driven) == 4  # one of each pair, as long as they are beginners


@pytest.fixture
def planned(monkeypatch):
    """The plans by which stage 05 would have evolved, had it been let."""
    plans = []
    monkeypatch.setattr(STAGE, "evolve", lambda search, plan, *_: plans.append(plan))
    return plans


def test_05_drives_as_its_constants_say(project, planned):
    tiny.stage(
        5, **FLAGS[5] | {"name": "other", "tracks": 5, "patience": 33, "replayed": 2,
        "lasting": 0.5, "least_sigma": 0.01, "most_sigma": 0.3,
        "mean_rate": 0.7, "most_difference": 50, "grass_cost": 0.2, "fitness": "duels"},
    )  # fmt: skip
    assert planned == [
        Plan(world="track", population=6, tracks=5, replayed=2, lasting=0.5, patience=33,
             least_sigma=0.01, most_sigma=0.3, mean_rate=0.7, fitness="duels", most_difference=50.0,
             grass_cost=0.2, select_tracks=1, select_every=1,
             arithmetic=arithmetic(), starts=8, horizon=600, temperature=1.0, own=0.4,
             failing=0.3, beginning=0.15, averaged=8)
    ]  # fmt: skip


@pytest.mark.slow
def test_05_goes_on_by_the_plan_that_it_has(project):
    """Nothing but the number of generations has to be said again; what differs is said."""
    tiny.stage(5, **FLAGS[5] | TWO | {"name": "two", "generations": 1})
    said = tiny.stage(5, name="two", generations=2, workers=0)
    header, arrays = load_arrays("checkpoints/two_evolution.npz", "evolution")
    assert (arrays["population"], arrays["generation"]) == (8, 2)
    for row in header["history"][0], header["history"][2]:
        told = {name: row[name] for name in ("population", "tracks", "duels", "most_sigma")}
        assert told == {"population": 8, "tracks": 1, "duels": 1, "most_sigma": 0.15}  # beginners
    assert len(header["plans"]) == 1
    (kept,) = (line for line in said.splitlines() if "settings stay" in line)
    assert "POPULATION 8 (not 144), PATIENCE 30 (not 100), MOST_SIGMA 0.15 (not 0.06)" in kept
    assert "changed" not in said
    assert read_log("checkpoints/two.csv")[2]["duels"] == 1


def test_05_says_and_records_what_a_flag_changes_in_a_search_that_goes_on(project):
    tiny.stage(5, **FLAGS[5] | TWO | {"name": "two", "generations": 1})
    flags = {"name": "two", "generations": 2, "workers": 0}
    said = tiny.stage(5, **flags, fitness="score", mean_rate=0.25)
    assert "changed: MEAN_RATE from 4.0 to 0.25, FITNESS from duels to score" in said
    assert "changed" not in tiny.stage(5, **flags | {"generations": 3})
    header = load_header("checkpoints/two_evolution.npz", "evolution")
    first, second = header["plans"]
    assert (first["generation"], first["FITNESS"], first["MEAN_RATE"]) == (0, "duels", 4.0)
    assert (second["generation"], second["FITNESS"], second["MEAN_RATE"]) == (1, "score", 0.25)
    assert first["POPULATION"] == second["POPULATION"] == 8
    rows = [row for row in header["history"] if "mean" in row]
    assert [row["duels"] for row in rows] == [1, 0, 0]
    assert [row["mean_rate"] for row in rows] == [4.0, 0.25, 0.25]
    c = load_agent("checkpoints", "two").controller_header
    assert c["plans"] == header["plans"]


def test_05_notices_that_v_computes_in_another_precision(project, planned, monkeypatch):
    monkeypatch.setattr("utils.evolution.plan.arithmetic", lambda: "another")
    said = tiny.stage(5, **FLAGS[5])
    assert f"changed: ARITHMETIC from {arithmetic()} to another" in said
    header = load_header("checkpoints/controller_evolution.npz", "evolution")
    assert [plan["ARITHMETIC"] for plan in header["plans"]] == [arithmetic(), "another"]


def test_05_refuses_a_state_that_does_not_know_its_plan(project):
    path = project / "checkpoints" / "controller_evolution.npz"
    header, arrays = load_arrays(path, "evolution")
    del header["kind"], header["fingerprint"]
    save_arrays(path, "evolution", arrays, **header | {"plans": []})
    with pytest.raises(UserError, match="does not say by which plan"):
        tiny.stage(5, **TWO, workers=0, generations=3)


@pytest.mark.parametrize(("folder", "name", "start", "sigma", "fitness"), [
    ("", "controller", "zeros", 0.03, "full_duels"),
    ("taught", "zeros", "zeros", 0.1, "duels"),
    ("taught", "controller", "imitation", 0.002, "score"),
])  # fmt: skip
def test_the_shipped_searches_can_be_gone_on_with(folder, name, start, sigma, fitness):
    search = Search.load(Files.of(str(tiny.ROOT / "checkpoints" / folder), name), 867)
    assert (search.settings["START"], search.settings["SIGMA"]) == (start, sigma)
    assert search.settings["FITNESS"] == fitness
    assert search.settings["POPULATION"] == search.evolution.population
    assert search.evolution.ask().shape == (search.evolution.population, 867)


@pytest.mark.parametrize("name", ["controller", "straight_on"])
def test_05_does_not_replace_a_c_whose_state_is_not_there(project, name):
    """Only the .pt was copied, or it never had one."""
    (project / "checkpoints" / "controller_evolution.npz").unlink()
    before = contents(project)
    sentence = rf"{name}\.pt is there without {name}_evolution.*NAME.*delete it"
    with pytest.raises(UserError, match=sentence):
        tiny.stage(5, **IMITATION | {"name": name})
    assert contents(project) == before


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"fitness": "duels", "population": 7}, r"POPULATION .*even for duels, not 7"),
        ({"fitness": "duels", "tracks": 334}, "1000 tracks, not 1002"),
        ({"least_sigma": 0.3}, r"LEAST_SIGMA .*at most MOST_SIGMA, 0\.06"),
    ],
)
def test_05_refuses_plans_that_cannot_be_driven(project, flags, sentence):
    before = contents(project / "checkpoints")
    with pytest.raises(UserError, match=sentence):
        tiny.stage(5, **FLAGS[5] | flags)
    assert contents(project / "checkpoints") == before


@pytest.mark.parametrize(("features", "unread"), [("z", slice(4, None)), ("h", slice(4))])
@pytest.mark.parametrize("start", ["zeros", "imitation"])
def test_05_leaves_out_the_features_that_c_may_not_read(project, features, unread, start):
    flags = IMITATION | {"start": start, "features": features, "name": features}
    tiny.stage(5, **flags | {"generations": 1})
    weights, _ = unpack(load_agent("checkpoints", features).parameters)
    assert weights.any()
    assert not weights[:, unread].any()


def test_05_refuses_the_evolution_of_other_settings_and_keeps_it(project):
    before = contents(project / "checkpoints")
    for flags in ({"sigma": 0.2}, {"seed": 8}, {"start": "imitation"}, {"env_id": STOCK_ID}):
        (name,) = flags
        with pytest.raises(UserError, match=f"controller_evolution.npz .*{name.upper()}.*NAME"):
            tiny.stage(5, **FLAGS[5] | flags)
        assert contents(project / "checkpoints") == before


def test_05_keeps_experiments_apart_by_name(project):
    before = contents(project / "checkpoints")
    said = tiny.stage(5, **FLAGS[5] | {"generations": 0, "name": "other", "select_tracks": 0})
    assert "next: python 06_evaluate.py --controller other\n" in said
    after = contents(project / "checkpoints")
    assert after.items() >= before.items()
    assert "other.pt" in after


@pytest.mark.parametrize("select_tracks", [0, 1])
def test_05_without_generations_saves_where_it_starts(project, select_tracks):
    flags = FLAGS[5] | {"generations": 0, "name": "start", "select_tracks": select_tracks}
    assert "start.pt saved" in tiny.stage(5, **flags)
    parameters = load_agent("checkpoints", "start").parameters
    assert np.array_equal(parameters, np.zeros_like(parameters))
    said = tiny.stage(5, **flags | {"generations": 1})
    assert "resuming at generation 0" in said


def test_05_imitates_first_and_does_not_repeat_finished_rounds(project):
    flags = IMITATION | {"name": "pupil"}
    said = tiny.stage(5, **flags)
    assert "imitation 1/2: score" in said
    assert "imitation 2/2: score" in said
    rounds = contents(project / "data" / "imitation" / "pupil")
    assert list(rounds) == ["round_000.npz", "round_001.npz"]
    agent = load_agent("checkpoints", "pupil")
    assert agent.parameters.any()
    assert agent.origin["controller_made_from"]["START"] == "imitation"

    for name in "pupil_evolution.npz", "pupil.pt":
        (project / "checkpoints" / name).unlink()
    times = [p.stat().st_mtime_ns for p in sorted((project / "data/imitation/pupil").iterdir())]
    tiny.stage(5, **flags)
    assert np.array_equal(load_agent("checkpoints", "pupil").parameters, agent.parameters)
    after = [p.stat().st_mtime_ns for p in sorted((project / "data/imitation/pupil").iterdir())]
    assert after == times


# In the dream

DREAMT = {
    "world": "dream", "start": "zeros", "sigma": 0.1, "population": 6, "starts": 4, "horizon": 20,
    "name": "dreamt", "generations": 3, "workers": 0,
}  # fmt: skip


def test_05_in_the_dream_drives_no_race(project, monkeypatch):
    monkeypatch.setattr("utils.simulator.envs.make_env", None)
    monkeypatch.setattr("utils.racing.agent.make_env", None)
    said = tiny.stage(5, **DREAMT)
    assert "dreamt.pt saved (unmeasured) after 3 generations" in said
    rows = read_log("checkpoints/dreamt.csv")
    assert [row["generation"] for row in rows] == [0, 1, 2]
    assert [row["dreamt"] for row in rows] == [6 * 4 * 20 * n for n in (1, 2, 3)]
    assert {row["frames"] for row in rows} == {0}
    assert not {"laps", "select_mean"} & rows[0].keys()
    picture(project / "checkpoints" / "dreamt.png")
    assert load_agent("checkpoints", "dreamt").parameters.any()


def test_05_keeps_the_average_of_the_means_of_its_dream(project):
    tiny.stage(5, **DREAMT, averaged=2)
    rnn, _ = load_rnn("checkpoints", load_vae("checkpoints")[1]["fingerprint"])
    means = []
    for generations in (1, 2, 3):
        tiny.stage(5, **DREAMT | {"generations": generations, "name": f"to_{generations}"})
        state = load_arrays(f"checkpoints/to_{generations}_evolution.npz", "evolution")[1]
        means.append(state["mean"])
    average = 0.5 * (0.5 * (means[0] + means[1]) + means[2])
    expected = FeatureScale.of(rnn).plain(average)
    assert np.array_equal(load_agent("checkpoints", "dreamt").parameters, expected)


def test_05_in_the_dream_ends_the_same_in_one_go_or_in_three_with_any_workers(project):
    tiny.stage(5, **DREAMT)
    expected = load_arrays("checkpoints/dreamt_evolution.npz", "evolution")[1]
    for generations, workers in ((1, 1), (2, 2), (3, 0)):
        tiny.stage(5, **DREAMT | {"name": "pieces", "generations": generations, "workers": workers})
    found = load_arrays("checkpoints/pieces_evolution.npz", "evolution")[1]
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def test_05_goes_on_dreaming_though_m_has_learnt_since(project):
    vae = load_vae("checkpoints")[1]["fingerprint"]
    tiny.stage(5, **DREAMT | {"generations": 2})
    _, other = tiny.networks(seed=3)
    save_network(dreaming_path("checkpoints"), "M", other, {"vae": vae})
    assert "resuming at generation 2" in tiny.stage(5, **DREAMT)
    learnt = load_arrays("checkpoints/dreamt_evolution.npz", "evolution")[1]["mean"]
    dreaming_path("checkpoints").unlink()
    tiny.stage(5, **DREAMT | {"name": "without"})
    without = load_arrays("checkpoints/without_evolution.npz", "evolution")[1]["mean"]
    assert not np.array_equal(learnt, without)


def test_05_goes_on_the_track_from_where_it_dreamt(project):
    tiny.stage(5, **DREAMT)
    said = tiny.stage(
        5, **FLAGS[5] | {"name": "dreamt", "generations": 4, "population": 8}, world="track"
    )
    assert "WORLD from dream to track" in said
    rows = read_log("checkpoints/dreamt.csv")
    assert [row["generation"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[3]["frames"] > 0
    assert rows[3]["dreamt"] == rows[2]["dreamt"]


def test_05_dreams_without_data_from_the_moments_that_ship(project):
    shutil.rmtree("data")
    assert "saved" in tiny.stage(5, **DREAMT)


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"fitness": "duels", "population": 7}, "POPULATION .* must be even"),
    ({"own": 0.8, "failing": 0.3}, "OWN .* FAILING .* BEGINNING .* shares of one whole"),
    ({"start": "imitation"}, "START .* must be zeros"),
    ({"latents": "nowhere"}, r"starts\.npz .*is missing.*; run python 04"),
])  # fmt: skip
def test_05_refuses_a_dream_that_cannot_be(project, flags, sentence):
    if "latents" in flags:
        (project / "checkpoints" / "starts.npz").unlink()
    before = contents(project)
    with pytest.raises(UserError, match=sentence):
        tiny.stage(5, **DREAMT | flags)
    assert contents(project) == before


def test_05_dreams_of_more_candidates_than_a_generation_has_tracks(project):
    flags = {"population": 2 * seeds.EVOLUTION_TRACKS, "starts": 1, "generations": 1}
    assert "saved" in tiny.stage(5, **DREAMT | flags)


def test_05_begins_dreams_in_the_drives_that_m_knows(project, monkeypatch):
    def of(*args):
        asked.append(args)
        raise KeyboardInterrupt

    asked = []
    monkeypatch.setattr(Moments, "of", of)
    with pytest.raises(KeyboardInterrupt):
        tiny.stage(5, **DREAMT)
    assert asked[0][:3] == ("data/latents", "data/dream/latents", 0)  # there is but one M


def test_05_names_the_world_in_which_to_train_on_dreams(project):
    before = contents(project)
    with pytest.raises(UserError, match=r'too slowly.* WORLD = "dream" \(--world dream\)\.$'):
        tiny.stage(5, **FLAGS[5] | {"env_id": DREAM_ID})
    assert contents(project) == before
