"""Stage 03: let V look at every rollout once, so that M trains on 32 numbers a frame.

Reads    data/rollouts/*.npz, checkpoints/vae.pt
Writes   data/latents/*.npz: mu and logvar of every frame, with action, reward, terminated
         data/latents/mirrored/*.npz, the same of each drive with left and right exchanged
         data/latents.png, how z is distributed
Time     about 2 minutes on two cores
Run      python 03_encode_dataset.py

Run again, it encodes only what is new or stale.
"""

from utils.runtime.start import run

from pathlib import Path

import numpy as np

from utils.pictures.plots import latent_distributions
from utils.runtime import command_line as flag
from utils.runtime.command_line import settings, stage_command
from utils.runtime.cores import cores
from utils.runtime.errors import UserError
from utils.runtime.progress import run_jobs
from utils.runtime.workers import OneAtATime, Workers
from utils.storage.files import beside, files
from utils.storage.networks import load_vae
from utils.storage.outputs import kind_of, prepare
from utils.world_model.episodes import rollouts
from utils.world_model.latents import encode, encodings, is_encoded, load_latents
from utils.world_model.mirror import mirror_image

# ---- constants: edit them here, or pass them as flags (--workers 1) ----
WORKERS = cores()  # processes; 0 encodes in this one
ROLLOUTS = "data/rollouts"  # what is encoded
LATENTS = "data/latents"  # where the latents go
CHECKPOINTS = "checkpoints"  # where V is
# -------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    s = settings(
        globals(), argv,
        WORKERS=flag.processes(), ROLLOUTS=flag.folder(), LATENTS=flag.folder(),
        CHECKPOINTS=flag.folder(),
    )  # fmt: skip
    picture = beside(s.LATENTS, ".png")
    latents = Path(s.LATENTS, "*.npz")
    kinds = {latents: "latents", mirror_image(latents): "latents", picture: "picture"}
    prepare(kinds)
    paths, _ = rollouts(s.ROLLOUTS)
    vae, header = load_vae(s.CHECKPOINTS)
    jobs = encodings(paths, s.LATENTS, header["fingerprint"])
    wanted = {Path(job.latents) for job in jobs}
    places = sorted({path.parent for path in wanted})
    there = {p for place in places for p in files(place) if kind_of(p) == "latents"}
    if there and not there & wanted:
        raise UserError(
            f"{s.LATENTS} holds latents of other rollouts than {s.ROLLOUTS}; name the folders that "
            "belong together (--rollouts, --latents), or delete it."
        )
    for path in sorted(there - wanted):
        path.unlink(missing_ok=True)
        print(f"{path} removed: its rollout is gone")

    missing = [job for job in jobs if not is_encoded(job)]
    if len(missing) < len(jobs):
        print(f"{len(jobs) - len(missing)} of {len(jobs)} drives and images are encoded already")
    setup = {"function": encode, "vae": vae}
    with Workers(min(s.WORKERS, len(missing)), OneAtATime, setup) as workers:
        run_jobs(workers, missing, "encoding", "episode", frames=lambda count: count)

    some = [load_latents(Path(job.latents))[1] for job in jobs[:: max(1, len(jobs) // 20)]]
    mu, logvar = (np.concatenate(arrays) for arrays in list(zip(*some, strict=True))[:2])
    latent_distributions(picture, mu, logvar)
    own = all(path.name.startswith("agent_") for path in paths)
    read = {"drives": str(len(paths)), "own_latents": s.LATENTS} if own else {"latents": s.LATENTS}
    said = stage_command("04_train_mdn_rnn", **read, checkpoints=s.CHECKPOINTS)
    print(f"{len(paths)} episodes in {s.LATENTS}; next: {said}")


if __name__ == "__main__":
    run(main)
