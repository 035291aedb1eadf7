"""Stage 06: drive, score and film the agent on the stock CarRacing-v3.

Reads    checkpoints/vae.pt, checkpoints/mdn_rnn.pt, checkpoints/controller.pt
Writes   checkpoints/results/NAME.json (every race, and where the figures come from)
         best_lap.mp4 (the best race, beside what V sees and what M expects next)
Time     about 2 minutes on two cores; 100 tracks take 8
Run      python 06_evaluate.py
         python 06_evaluate.py --episodes 100 --name shipped     (the README's table)
"""

import os
import time
from pathlib import Path

from tqdm import tqdm

from models.inference import ROWS
from utils.command_line import UserError, choice, folder, run, settings, whole, word
from utils.driving import Race, Races
from utils.envs import ENV_IDS
from utils.evaluation import film, save_report, sentence
from utils.networks import controller_path, load_controller, load_rnn, load_vae
from utils.workers import Workers

# ---- constants: edit them here, or pass them as flags (--episodes 100) ----
EPISODES = 10  # tracks to drive, as the project that we follow reported; 100 for the table
FIRST_SEED = 0  # of the tracks; 0-99 are for reports, nothing is trained or chosen on them
ENV_ID = "CarRacing-v3"  # the stock environment: scores are only ever reported on this one
CONTROLLER = "controller"  # which C drives: checkpoints/CONTROLLER.pt
NAME = "latest"  # of the report
FILM = "best_lap.mp4"  # the best race; "none" leaves it out
WORKERS = os.cpu_count()  # processes; 0 drives in this one; the scores are the same for any
CHECKPOINTS = "checkpoints"  # where V, M and C are and the report goes
# ---------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    s = settings(
        globals(), argv,
        EPISODES=whole(1), FIRST_SEED=whole(), ENV_ID=choice(*ENV_IDS), CONTROLLER=word(),
        NAME=word(), FILM=word(), WORKERS=whole(), CHECKPOINTS=folder(),
    )  # fmt: skip
    vae, vae_header = load_vae(s.CHECKPOINTS)
    rnn, rnn_header = load_rnn(s.CHECKPOINTS, vae_header["fingerprint"])
    path = controller_path(s.CHECKPOINTS, s.CONTROLLER)
    parameters, header = load_controller(path, vae_header, rnn_header)

    start = time.monotonic()
    races = [Race(s.FIRST_SEED + i, parameters) for i in range(s.EPISODES)]
    with (
        tqdm(total=len(races), desc="racing", unit="race") as bar,
        Workers(
            s.WORKERS, Races, {"env_id": s.ENV_ID, "vae": vae, "rnn": rnn},
            slots=ROWS, preload=["utils.driving"],
        ) as workers,
    ):  # fmt: skip
        laps = workers.run(races, on_result=lambda *_: bar.update())
        cpu = workers.cpu_seconds
    report = Path(s.CHECKPOINTS) / "results" / f"{s.NAME}.json"
    made_from = {
        "env_id": s.ENV_ID,
        "vae": vae_header["fingerprint"],
        "rnn": rnn_header["fingerprint"],
        "controller": header["fingerprint"],
        "taught_by": header["made_from"].get("START"),
    }
    save_report(report, laps, made_from, time.monotonic() - start, cpu)
    print(f"{sentence(laps)}; every race is in {report}")

    if s.FILM != "none":
        best = max(laps, key=lambda lap: lap.score)
        try:
            film(Path(s.FILM), s.ENV_ID, vae, rnn, parameters, best)
        except OSError as error:
            raise UserError(
                f"{s.FILM} could not be written ({error.strerror}); the scores are in {report}."
            ) from error
        print(f"{s.FILM} shows the best one: track {best.seed}, score {best.score:.1f}")


if __name__ == "__main__":
    run(main)
