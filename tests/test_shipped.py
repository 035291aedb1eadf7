"""What the repository ships: the trained agent, its results, and a README that is true of them."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from stages import load_report

from utils.racing.agent import Races
from utils.racing.race import Race
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID
from utils.storage.networks import load_agent, load_dreaming

ROOT = Path(__file__).resolve().parent.parent
REPORTS = sorted(
    path
    for path in (ROOT / "checkpoints").glob("**/results/*.json")
    if path.stem not in ("latest", "m")  # the user's own, and what M is worth
)
ON_THE_FRONT_PAGE = (
    "further", "shipped", "pupil", "imitation", "nobody", "taught", "taught_further", "default",
    "dream", "longer", "autopilot",
)  # fmt: skip


def shipped_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split() if listed.returncode == 0 else []
    return [ROOT / name for name in names] or list((ROOT / "checkpoints").rglob("*.*"))


def test_the_shipped_agent_belongs_together_and_drives():
    agent = load_agent(str(ROOT / "checkpoints"))
    assert agent.parameters.shape == (867,)
    races = Races(FAST_ID, agent.vae, agent.rnn)
    races.start(0, Race(seeds.SELECT[0], agent.parameters))
    finished: list = []
    while not finished:
        finished = races.advance()
    assert finished[0][1].score > 850


def test_the_shipped_report_is_of_the_shipped_agent():
    report = load_report(ROOT / "checkpoints" / "results" / "shipped.json")
    origin = load_agent(str(ROOT / "checkpoints")).origin
    assert {name: report[name] for name in origin} == origin
    assert report["env_id"] == "CarRacing-v3"
    assert [episode["seed"] for episode in report["per_episode"]] == list(seeds.REPORT)


def test_the_shipped_figures_on_m_are_of_the_shipped_dreams():
    checkpoints = str(ROOT / "checkpoints")
    agent = load_agent(checkpoints)
    origin = agent.origin
    report = json.loads((ROOT / "checkpoints" / "results" / "m.json").read_text())
    assert {name: report[name] for name in origin} == origin
    assert report["dreaming_rnn"] == load_dreaming(checkpoints, agent)[1]["fingerprint"]


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_reports_add_up_and_stand_in_the_table_beside_them(path):
    report = load_report(path)
    scores = np.array([episode["score"] for episode in report["per_episode"]])
    assert report["mean"] == pytest.approx(scores.mean())
    assert report["sd"] == pytest.approx(scores.std())
    assert report["laps_complete"] == sum(e["lap_complete"] for e in report["per_episode"])
    for episode in report["per_episode"]:
        gained = 1000 * episode["tiles"] / episode["total_tiles"] - 0.1 * episode["frames"]
        lost = episode["frames"] < 1000 and not episode["lap_complete"]  # -100 for leaving
        assert episode["score"] == pytest.approx(gained, abs=1e-6) or lost
    table = (ROOT / "checkpoints" / "results" / "README.md").read_text(encoding="utf-8")
    assert f"{report['mean']:.1f} ± {report['sd']:.1f}" in table
    if path.stem in ON_THE_FRONT_PAGE:
        front_page = (ROOT / "README.md").read_text(encoding="utf-8")
        assert f"{report['mean']:.1f} ± {report['sd']:.1f}" in front_page


def test_no_file_is_over_20_megabytes_and_no_data_is_committed():
    for path in filter(Path.exists, shipped_files()):
        assert path.stat().st_size < 20e6, path
        assert path.parent != ROOT / "data" or path.name == "README.md", path


def test_the_front_page_is_short_and_names_every_room():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 200
    assert (ROOT / "checkpoints" / "pictures" / "best_lap.gif").stat().st_size < 3e6
    for init in (ROOT / "utils").glob("*/__init__.py"):
        assert f"| `{init.parent.name}` |" in readme


PAGES = [path for path in shipped_files() if path.suffix == ".md"]
TOLD = [*PAGES, *ROOT.glob("0*.py"), ROOT / "checkpoints" / "results" / "rows.sh"]


@pytest.mark.parametrize("page", TOLD, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_tells_is_of_a_stage_and_its_constants(page):
    text = re.sub(r"\\\n|\n {9}(?=--)", " ", page.read_text(encoding="utf-8"))  # lines that go on
    for stage, flags in re.findall(r"python (0\d_\w+\.py)([^`\n]*)", text):
        constants = (ROOT / stage).read_text(encoding="utf-8")
        for flag in re.findall(r"--([a-z][a-z-]+)", flags):
            name = flag.upper().replace("-", "_")
            assert flag == "help" or re.search(rf"^{name} = ", constants, re.MULTILINE), flag


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
