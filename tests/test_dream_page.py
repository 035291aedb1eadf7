"""The page of the dream: what is in it, and how it behaves in a real browser."""

import base64
import json
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tiny
import torch
from browser import Browser
from stages import expect_the_end

from models.controller import squash, unpack
from models.dream import DreamWorld, Luck
from models.mdn_rnn import LOG_SIGMA_RANGE
from utils.drivers import keyboard
from utils.evolution.dreaming import LOST, PACE_KEPT
from utils.pictures.dream_page import PAGE_MOMENTS, TEMPERATURE, write_page
from utils.runtime.errors import UserError
from utils.simulator.envs import FAST_ID, FPS
from utils.storage.networks import (
    TrainedAgent,
    dreaming_path,
    load_agent,
    load_dreaming,
)
from utils.storage.outputs import kind_of
from utils.world_model.starts import Starts, load_starts, starts_path, warm_up

SHIPPED = tiny.ROOT / "checkpoints"
SAME = 1e-4  # after 100 frames; a float32 sum of other order makes 1e-5, one wrong weight far more


def ingredients(checkpoints, name="controller"):
    """What a page is made of."""
    agent = load_agent(checkpoints, name)
    dreaming, _ = load_dreaming(checkpoints, agent)
    return agent, dreaming, load_starts(starts_path(checkpoints), agent.vae_header)


def inside(page):
    """The plain values that a page holds, read as a browser reads them."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script id="page" type="application/json">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def test_the_shipped_page_is_of_the_shipped_agent_and_small(tmp_path):
    write_page(tmp_path / "dream.html", *ingredients(SHIPPED), "controller")
    page = (SHIPPED / "dream.html").read_bytes()
    assert page == (tmp_path / "dream.html").read_bytes()
    assert len(page) < 5e6
    assert kind_of(SHIPPED / "dream.html") == "page"
    assert (SHIPPED / "pictures" / "dream_page.png").stat().st_size < 300e3


def test_a_page_loads_nothing_from_anywhere():
    text = (SHIPPED / "dream.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"\bsrc=|@import|url\(|\bimport\b|fetch\(|XMLHttpRequest", text)


def test_a_page_holds_the_weights_as_halves_and_moments_of_all_the_starts(tmp_path):
    agent, dreaming, starts = ingredients(SHIPPED)
    page = inside(SHIPPED / "dream.html")
    numbers = np.frombuffer(base64.b64decode(page["numbers"]), "<f2")
    wanted = {"controller": agent.parameters}
    for network, module in (
        ("rnn", agent.rnn), ("dreaming", dreaming), ("decoder", agent.vae.decoder)
    ):  # fmt: skip
        wanted |= {f"{network}.{name}": w.numpy() for name, w in module.named_parameters()}
    assert page["weights"] == sum(array.size for array in wanted.values())
    some = starts.take(np.arange(PAGE_MOMENTS) * (len(starts.seen) // PAGE_MOMENTS))
    wanted |= {"starts.mu": some.mu, "starts.action": some.action}
    assert page["table"].keys() == wanted.keys()
    for name, (shape, at) in page["table"].items():
        held = numbers[at : at + wanted[name].size].reshape(shape)
        assert np.array_equal(held, wanted[name].astype("<f2")), name
    assert page["starts"] == PAGE_MOMENTS
    assert page["seen"] == some.seen.tolist()


def test_the_name_of_an_agent_is_a_name_and_nothing_else(tmp_path):
    name = '</script><script>alert("{{SCRIPT}}")</script>&amp;'
    write_page(tmp_path / "dream.html", *ingredients(SHIPPED), name)
    assert inside(tmp_path / "dream.html")["agent"] == name
    text = (tmp_path / "dream.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "alert" not in text.replace(json.dumps(name)[1:-1].replace("<", "\\u003c"), "")


def test_a_weight_that_no_half_holds_leaves_the_page_as_it_was(tmp_path):
    agent, dreaming, starts = ingredients(SHIPPED)
    parameters = agent.parameters.copy()
    parameters[5] = 1e6
    with pytest.raises(UserError, match="half precision"):
        write_page(
            tmp_path / "p.html", replace(agent, parameters=parameters), dreaming, starts, "x"
        )
    assert not list(tmp_path.iterdir())


# Stage 06

PAGE = "dream_straight_on.html"  # of the agent below
RACE = {
    "episodes": 1, "first_seed": 6, "controller": "straight_on", "env_id": FAST_ID, "workers": 0,
    "film": "none",
}  # fmt: skip


def test_06_writes_the_page_of_the_agent_that_drives(finished, tmp_path):
    checkpoints = finished.folder / "checkpoints"
    agent, _, starts = ingredients(checkpoints, "straight_on")
    write_page(tmp_path / "dream.html", agent, agent.rnn, starts, "straight_on")
    assert (checkpoints / PAGE).read_bytes() == (tmp_path / "dream.html").read_bytes()
    assert f"checkpoints/{PAGE} lets you drive" in finished.said[6]


def test_06_leaves_the_page_of_another_controller_alone(finished):
    assert not (finished.folder / "checkpoints" / "dream.html").exists()


def test_06_puts_a_second_m_into_the_page_where_there_is_one(project):
    expect_the_end(dreaming_path("checkpoints"), -3.0)
    tiny.stage(6, **RACE)
    page = inside(project / "checkpoints" / PAGE)
    assert page["dreaming_sizes"] == page["sizes"]
    assert [name for name in page["table"] if name.startswith("dreaming.lstm")]


@pytest.mark.parametrize("trouble", ["missing", "damaged", "of another V", "no folder to write"])
def test_06_without_moments_to_begin_with_keeps_the_scores_and_the_page(project, trouble):
    starts, page = project / "checkpoints/starts.npz", project / "checkpoints" / PAGE
    before = page.read_bytes()
    if trouble == "missing":
        starts.unlink()
    elif trouble == "damaged":
        starts.write_bytes(starts.read_bytes()[:1000])
    elif trouble == "of another V":
        tiny.save_networks("other", seed=1)
        tiny.save_c(project / "other" / "straight_on.pt", tiny.STRAIGHT_ON)
        starts.replace(project / "other" / "starts.npz")
        starts, page, before = project / "other/starts.npz", project / "other" / PAGE, None
    else:
        starts.unlink()
        starts.mkdir()
    said = tiny.stage(6, **RACE, checkpoints=starts.parent.name, name="unpaged")
    assert re.search(r"dream_straight_on\.html is left out \(.*starts\.npz", said)
    assert "lets you drive" not in said
    assert (page.parent / "results" / "unpaged.json").exists()
    assert (page.read_bytes() if page.exists() else None) == before


def test_06_writes_no_page_over_somebody_elses_and_none_for_another_driver(project):
    page = project / "checkpoints" / PAGE
    page.write_text("<!doctype html><p>my diary")
    with pytest.raises(UserError, match=r"dream_straight_on\.html is no page"):
        tiny.stage(6, **RACE)
    tiny.stage(6, **RACE | {"driver": "random"})
    assert page.read_text() == "<!doctype html><p>my diary"


# In a browser

SHOWN = ("z", "h", "action", "expected", "sums", "image")


def rounded(agent, dreaming, starts):
    """As the page has them: half precision, computed in float32."""
    for network in (agent.vae, agent.rnn, dreaming):
        network.load_state_dict({k: v.half().float() for k, v in network.state_dict().items()})
    parameters = agent.parameters.astype(np.float16).astype(np.float32)
    mu, action = (array.astype(np.float16).astype(np.float32) for array in starts[:2])
    return replace(agent, parameters=parameters), dreaming, Starts(mu, action, starts.seen)


@torch.inference_mode()
def dreamt(agent, dreaming, start, luck, temperature):
    """z, h, action, expected, sums and image of every frame, by models/."""
    world, memory = DreamWorld(dreaming, temperature), DreamWorld(agent.rnn)
    (weights, bias), frames = unpack(agent.parameters), []
    (z, world_h, world_c), (_, h, c) = warm_up(world, start), warm_up(memory, start)
    total, running, pace = torch.zeros(1), torch.ones(1), torch.ones(1)
    for t in range(len(luck.normal)):
        features = np.concatenate([z[0].numpy(), h[0].numpy()])
        action = squash(weights @ features + bias)
        doing = torch.from_numpy(action)[None]
        world_h, world_c = world.remember(z, doing, world_h, world_c)
        h, c = memory.remember(z, doing, h, c)
        z, reward, ended = world.imagine(
            world_h, Luck(luck.gumbel[t : t + 1], luck.normal[t : t + 1])
        )
        total, running = total + reward, running * (1 - ended)
        pace = PACE_KEPT * pace + (1 - PACE_KEPT) * reward
        image = agent.vae.decode(z)[0].permute(1, 2, 0)
        expected, sums = torch.cat([reward, ended]), torch.cat([total, running, pace])
        frames.append([z[0], h[0], action, expected, sums, image])
    return [np.stack([np.asarray(frame[i]).ravel() for frame in frames]) for i in range(len(SHOWN))]


DREAM = """
const [start, temperature, gumbel, normal] = arguments;
const dream = new Dream(page), { luck, z } = dream, took = [[], [], [], [], [], []];
dream.temperature = temperature;
dream.begin(start);
for (let t = 0; t < normal.length; t++) {
  dream.think();
  luck.gumbel.set(gumbel[t].flat());
  luck.normal.set(normal[t]);
  dream.step();
  dream.decoder.decode(z);
  const expected = [dream.reward, dream.world.ended];
  const sums = [dream.return, dream.running, dream.pace];
  [z, dream.memory.h, dream.action, expected, sums, dream.decoder.image].forEach(
    (numbers, i) => took[i].push(...numbers),
  );
}
return took.map((numbers) => {
  let bytes = "";
  for (const byte of new Uint8Array(new Float32Array(numbers).buffer))
    bytes += String.fromCharCode(byte);
  return btoa(bytes);
});
"""


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


def differences(browser, page, made_of, start, temperature, frames=100):
    """The largest of each of `dreamt` between page and PyTorch, over the same moment and luck."""
    agent, dreaming, starts = rounded(*made_of)
    luck = Luck.draw(np.random.default_rng(3), frames, dreaming.sizes)
    wanted = dreamt(agent, dreaming, starts.take([start]), luck, temperature)
    browser.open(page)
    found = browser.run(DREAM, start, temperature, luck.gumbel.tolist(), luck.normal.tolist())
    assert np.abs(np.diff(wanted[0], axis=0)).max(1).min() > 1e-3, "the dream stands still"
    return {
        name: float(np.abs(np.frombuffer(base64.b64decode(f), "<f4") - w.ravel()).max())
        for name, f, w in zip(SHOWN, found, wanted, strict=True)
    }


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_page_dreams_the_same_numbers_as_pytorch(browser, temperature):
    """As long as rounding plays no part: at full speed its errors grow tenfold in ten frames."""
    found = differences(browser, SHIPPED / "dream.html", ingredients(SHIPPED), 0, temperature, 12)
    assert max(found.values()) < SAME, found
    assert browser.complaints() == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_tidier_driver_s_page_does_so_for_longer(browser, tmp_path, temperature):
    agent, dreaming, starts = ingredients(SHIPPED / "taught")
    write_page(tmp_path / "dream.html", agent, dreaming, starts, "controller")
    made_of = (agent, dreaming, starts)
    found = differences(browser, tmp_path / "dream.html", made_of, 0, temperature)
    assert max(found.values()) < SAME, found
    assert browser.complaints() == []


def test_page_and_package_have_the_same_constants(browser):
    browser.open(SHIPPED / "dream.html")
    found = browser.run("""
        return [FRAME, PACE_KEPT, LOST, LEAST_LOG_SIGMA, MOST_LOG_SIGMA,
                ...RATES, RELEASE_RATE, MOST_BRAKE, LAP, MOST_IN_A_SECOND];
    """)
    rates = (keyboard.STEER_RATE, keyboard.GAS_RATE, keyboard.BRAKE_RATE, keyboard.RELEASE_RATE)
    assert found == [
        1000 / FPS, PACE_KEPT, LOST, *LOG_SIGMA_RANGE, *rates, keyboard.MOST_BRAKE, keyboard.LAP,
        keyboard.MOST_IN_A_SECOND,
    ]  # fmt: skip


def test_the_page_dreams_in_another_m_than_the_one_whose_h_c_reads(browser, tmp_path):
    (vae, rnn), (_, dreaming) = tiny.networks(), tiny.networks(seed=1)
    agent, rng = TrainedAgent(vae, rnn, {}, {}, tiny.lively(0), {}), np.random.default_rng(0)
    mu = rng.normal(size=(2, 51, tiny.LATENT_DIM)).astype(np.float32)
    starts = Starts(mu, rng.random((2, 50, 3), np.float32), np.array([50, 7]))
    write_page(tmp_path / "dream.html", agent, dreaming, starts, "two")
    for start in (0, 1):
        found = differences(browser, tmp_path / "dream.html", (agent, dreaming, starts), start, 0.7)
        assert max(found.values()) < SAME, found


# One who drives

STATE = """
const said = (id) => document.getElementById(id).textContent;
return {
  driver: said("driver"), note: said("note"), temperature: said("temperature-now"),
  pause: said("pause"), frame: dream.frame, action: Array.from(dream.action), start: road,
  warmth: dream.temperature, shown: frames.painted,
};
"""
COUNT = """
window.frames = { painted: 0 };
const { putImageData } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.putImageData = function (image, ...where) {
  if (image === picture.image) frames.painted++;
  return putImageData.call(this, image, ...where);
};
"""


class Visitor:
    """Somebody before the shipped page."""

    def __init__(self, browser, page=SHIPPED / "dream.html"):
        self.browser = browser
        browser.open(page)
        browser.run(COUNT)

    @property
    def sees(self):
        return SimpleNamespace(**self.browser.run(STATE))

    def waits_until(self, condition):
        for _ in range(200):
            if condition(seen := self.sees):
                return seen
            time.sleep(0.05)
        raise AssertionError(f"still {seen}")


@pytest.fixture
def visitor(browser):
    return Visitor(browser)


def test_the_agent_drives_from_the_first_moment(visitor):
    seen = visitor.waits_until(lambda seen: seen.shown > 20)
    assert seen.driver == "The agent drives"
    assert seen.warmth == TEMPERATURE
    assert seen.frame >= 20
    assert any(seen.action)


@pytest.mark.parametrize(
    ("key", "control", "sign"),
    [("Left", 0, -1), ("Right", 0, 1), ("Up", 1, 1), ("Down", 2, 1),
     ("a", 0, -1), ("d", 0, 1), ("w", 1, 1), ("s", 2, 1)],
)  # fmt: skip
def test_a_held_key_takes_the_wheel_and_a_released_one_gives_it_back(visitor, key, control, sign):
    visitor.browser.keys(("keyDown", key))
    others = [i for i in range(3) if i != control]
    visitor.waits_until(
        lambda seen: seen.driver == "You drive" and sign * seen.action[control] > 0.75
        and not any(seen.action[i] for i in others)
    )  # fmt: skip
    visitor.browser.keys(("keyUp", key))
    visitor.waits_until(lambda seen: seen.driver == "The agent drives" and any(seen.action))


def test_a_finger_on_the_picture_drives(visitor):
    browser = visitor.browser
    element = browser.run("""
        window.driven = [];
        const { step } = dream;
        dream.step = function () {
          driven.push([youDrive, ...this.action]);
          step.call(this);
        };
        return document.getElementById("picture");
    """)
    move = {"type": "pointerMove", "duration": 0, "origin": element}
    rest = {"type": "pause", "duration": 1000}
    browser.finger(
        move | {"x": -150, "y": -150}, {"type": "pointerDown", "button": 0}, rest,
        move | {"x": 150, "y": 150}, rest, {"type": "pointerUp", "button": 0},
    )  # fmt: skip
    visitor.waits_until(lambda seen: seen.driver == "The agent drives")
    you, steering, gas, brake = np.array(browser.run("return driven"), float).T
    left = (steering < -0.7) & (gas > 0.7) & (brake == 0) & (you == 1)
    right = (steering > 0.7) & (gas == 0) & (brake > 0.5) & (you == 1)
    assert left.any()
    assert right.any()
    assert left.argmax() < right.argmax()


def test_a_keyboard_alone_reaches_everything(visitor):
    browser, focus = visitor.browser, "return document.activeElement.id"

    def press(key):
        browser.keys(("keyDown", key), ("keyUp", key))

    reached = []
    while "temperature" not in reached:
        press("Tab")
        reached.append(browser.run(focus))
    assert reached == ["pause", "road", "temperature"]
    before = visitor.sees.warmth
    browser.keys(("keyDown", "Right"))
    seen = visitor.waits_until(lambda seen: seen.warmth > before)
    assert seen.driver == "The agent drives", "the slider has this arrow"
    assert float(seen.temperature) == pytest.approx(seen.warmth)
    browser.keys(("keyUp", "Right"))

    press("Space")  # pauses wherever one is
    paused = visitor.waits_until(lambda seen: seen.pause == "Play")
    time.sleep(0.2)
    assert visitor.sees.frame == paused.frame
    press("Enter")
    seen = visitor.waits_until(lambda seen: seen.frame == 0)
    assert seen.start == (paused.start + 1) % PAGE_MOMENTS
    press("Space")
    visitor.waits_until(lambda seen: seen.pause == "Pause" and seen.frame > 5)

    for button in ("pause", "road"):  # Space there is the button's own
        before = visitor.sees
        browser.run("document.getElementById(arguments[0]).focus()", button)
        press("Space")
        visitor.waits_until(lambda seen, before=before: seen.pause != before.pause
                            or seen.start != before.start)  # fmt: skip
    assert visitor.sees.pause == "Play"


def test_a_dream_runs_at_fifty_frames_a_second_on_any_display(visitor):
    advanced = visitor.browser.run("""
        pause(true);
        live(1e9);
        pause(false);
        const start = (newRoad(), dream.frame), counts = [];
        for (const [hertz, from] of [[120, 1e9], [60, 1e9 + 1000], [25, 1e9 + 2000]]) {
          const before = dream.frame;
          for (let t = 1; t <= hertz; t++) {
            overFor = 0;
            live(from + (1000 * t) / hertz);
          }
          counts.push(dream.frame - before);
        }
        const before = dream.frame;
        live(1e9 + 60e3);
        return [...counts, dream.frame - before];
    """)
    assert advanced[:3] == pytest.approx([50, 50, 50], abs=1)
    assert advanced[3] <= 6, "a minute in the background is not made up for"


def test_memory_stays_flat(visitor):
    def dreams_on():
        visitor.browser.run("for (let i = 0; i < 100; i++) { advance(); paint(); write(); }")
        visitor.browser.devtools("HeapProfiler.collectGarbage")
        return visitor.browser.devtools("Runtime.getHeapUsage")["usedSize"]

    used = [dreams_on() for _ in range(14)][4:]  # the first ones still compile
    assert min(used[5:]) < min(used[:5]) + 50_000, "no 100 bytes a frame stay behind"


def test_a_lost_road_is_called_lost_and_makes_room_for_another(browser, tmp_path):
    agent, dreaming, starts = ingredients(SHIPPED)
    dreaming.outcome.bias[0] -= 100
    write_page(tmp_path / "dream.html", agent, dreaming, starts, "lost")
    visitor = Visitor(browser, tmp_path / "dream.html")
    first = visitor.sees.start
    visitor.waits_until(lambda seen: "The road is lost" in seen.note)
    visitor.waits_until(lambda seen: seen.start != first)
    browser.keys(("keyDown", "Up"))
    seen = visitor.waits_until(lambda seen: seen.frame > 160)
    assert "The road is lost" in seen.note, "whoever drives decides when to give up"
    assert "Enter" in seen.note
    browser.keys(("keyUp", "Up"))


def test_a_lap_is_over_with_all_the_points_that_it_is_worth(visitor):
    frames = visitor.browser.run("""
        pause(false);
        newRoad();
        dream.return = 2000;
        const before = road;
        let frames = 0;
        for (; road === before; frames++) advance();
        return frames;
    """)
    assert frames == 151


def test_points_and_ends_that_no_race_has_are_called_so(visitor):
    said = visitor.browser.run("""
        pause(false);
        newRoad();
        const said = [note()];
        dream.running = 0.4;
        said.push(note());
        dream.return = 1001;
        said.push(note());
        for (let t = 0; t < 100; t++) advance();
        dream.return = 0;
        rewards.fill(2.5);
        dream.pace = 2.5;
        said.push(note());
        return said;
    """)
    words = ("imagined", "likely over", "no lap is worth 1000", "no car earns 120")
    for some, sentence in zip(words, said, strict=True):
        assert some in sentence


def test_who_wants_little_motion_begins_with_a_still(visitor):
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    visitor.browser.emulate("setEmulatedMedia", features=still)
    visitor = Visitor(visitor.browser)
    time.sleep(0.3)
    seen = visitor.sees
    assert (seen.pause, seen.frame) == ("Play", 0)
    assert "Space begins" in seen.note
    visitor.browser.emulate("setEmulatedMedia", features=[])
    visitor.browser.keys(("keyDown", "Space"), ("keyUp", "Space"))
    visitor.waits_until(lambda seen: seen.frame > 5)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window_in_light_and_dark(visitor, tmp_path, width, height, scheme):
    browser = visitor.browser
    window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.emulate("setDeviceMetricsOverride", **window)
    colours = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.emulate("setEmulatedMedia", features=colours)
    browser.run("newRoad()")
    visitor.waits_until(lambda seen: seen.frame > 5)
    browser.screenshot(tmp_path / "shot.png")
    wide, low = browser.run("""
        const low = document.getElementById("temperature").getBoundingClientRect().bottom;
        return [document.documentElement.scrollWidth, low];
    """)
    browser.emulate("clearDeviceMetricsOverride")
    browser.emulate("setEmulatedMedia", features=[])
    assert wide <= width, "nothing sticks out"
    assert low <= height, "picture and controls are seen at once"
    shot = cv2.imread(str(tmp_path / "shot.png"))
    assert shot.shape == (height, width, 3)
    ground = shot[2, 2].mean()
    assert ground > 200 if scheme == "light" else ground < 40
    green = (shot[:, :, 1] > shot[:, :, 0] + 40) & (shot[:, :, 1] > shot[:, :, 2] + 40)
    assert green.mean() > 0.08, "the grass of the big picture"
    assert browser.complaints() == []
