#!/usr/bin/env bash
# Makes the rows of the table again, from nothing, in a folder of its own; `dream_of_never_own` is the table's
# `never_own`, `dream_of_untrained_m` its `random_m`. Not made are those of other tracks (`further`, `selection_*`),
# of older agents, and `after_44`, which is `default` with --generations 44. From the project's root
#
#     bash checkpoints/results/rows.sh ../rows
#
# It takes a day on two cores. Stopped, it goes on where it was when run again.
set -euo pipefail
mkdir -p "$1"
cp -r 0*.py models utils "$1"
cd "$1"

report() { # FOLDER NAME FLAGS...: a hundred races on stock's tracks 0 to 99, unless they were driven before
    [ -e "$1/results/$2.json" ] ||
        python 06_evaluate.py --checkpoints "$1" --name "$2" --episodes 100 --film none "${@:3}"
}

wide="--sigma 0.1 --most-sigma 0.2 --mean-rate 0.5" # as the rows of the dream were made
all=checkpoints dream=checkpoints/dream never_own=checkpoints/never_own random_m=checkpoints/untrained_m

python 01_collect_rollouts.py
python 02_train_vae.py
python 03_encode_dataset.py
python 04_train_mdn_rnn.py

report $all random --driver random
report $all autopilot --driver autopilot

# C without a teacher, on the track
python 05_train_controller.py
report $all default
python 05_train_controller.py --generations 124
report $all shipped

# C in the dream only, with an M that learns from the agent's drives; then on the track
mkdir -p $dream
cp $all/{vae.pt,mdn_rnn.pt,starts.npz} $dream
rounds() { # FIRST LAST AVERAGED
    for round in $(seq $1 $2); do
        python 05_train_controller.py --world dream $wide --population 64 --averaged $3 \
            --generations $((8 * round)) --checkpoints $dream
        python 01_collect_rollouts.py --agent-episodes $((32 * round)) --checkpoints $dream
        python 03_encode_dataset.py --rollouts data/dream/rollouts --latents data/dream/latents --checkpoints $dream
        python 04_train_mdn_rnn.py --drives $((32 * round)) --checkpoints $dream
    done
}
rounds 1 16 8
report $dream dream
[ -e $dream/track_evolution.npz ] || cp $dream/controller_evolution.npz $dream/track_evolution.npz
python 05_train_controller.py --name track --world track --population 72 --mean-rate 1 --select-tracks 0 \
    --generations 137 --checkpoints $dream
report $dream track --controller track
rounds 17 24 24 # this is the same search once more; the table's is that of again
report $dream longer

# C in the dream of an M that never sees its drives: of stage 04's, and of one that never learnt anything
mkdir -p $never_own $random_m
cp $all/{vae.pt,mdn_rnn.pt,starts.npz} $never_own
cp $all/vae.pt $random_m
python 04_train_mdn_rnn.py --epochs 0 --checkpoints $random_m
for home in $never_own $random_m; do
    python 05_train_controller.py --world dream $wide --population 64 --generations 128 --own-latents data/none \
        --checkpoints $home
    report $home dream_of_$(basename $home)
done

# V, M and C from random and own driving alone, in three rounds: what a C drives, the next V and M learn from
before= generations=(0 10 112 44) # of each round
for round in 1 2 3; do
    home=checkpoints/nobody_$round driven=data/nobody/$round latents=data/nobody/${round}_latents
    python 01_collect_rollouts.py --autopilot-episodes 0 --random-episodes 120 --rollouts $driven
    if [ -n "$before" ]; then
        python 01_collect_rollouts.py --agent-episodes 150 --own-rollouts $driven --checkpoints $before
    fi
    python 02_train_vae.py --rollouts $driven --checkpoints $home
    python 03_encode_dataset.py --rollouts $driven --latents $latents --checkpoints $home
    python 04_train_mdn_rnn.py --rollouts $driven --latents $latents --checkpoints $home
    python 05_train_controller.py --generations ${generations[round]} --checkpoints $home
    before=$home
done
report $before nobody

# C with a teacher: with all of it, with half of what it reads, with an M that never learnt; and evolved further
python 05_train_controller.py --name imitation --start imitation --generations 0
report $all imitation --controller imitation
for half in z h; do
    python 05_train_controller.py --name $half --start imitation --generations 0 --features $half
    report $all ${half}_only --controller $half
done
python 05_train_controller.py --name imitation --start imitation --generations 0 --checkpoints $random_m \
    --imitation data/imitation_untrained
report $random_m untrained_m --controller imitation
python 05_train_controller.py --name pupil --start imitation --sigma 0.002 --fitness score --population 48 \
    --tracks 12 --replayed 0 --mean-rate 0.5 --generations 12
report $all pupil --controller pupil
