"""tpu_pod.sh against a stand-in for gcloud."""

import os
import tarfile

import pytest
from shells import LAUNCH, MAIN, TPU, eventually, started

GCLOUD = "gcloud compute tpus tpu-vm"


@pytest.fixture
def gcloud(shell):
    """A stand-in whose only worker is this machine, with a home directory of its own."""
    shell.fake(
        "gcloud",
        """
        cd "$HOME"
        case $4 in
          scp) cp "$5" "${6#*:}" ;;
          ssh) bash -c "${7#--command=}" ;;
        esac
        """,
    )


def test_tpu_dry_runs(shell):
    def dry(*arguments, **variables):
        status, out, err = shell.run("tpu_pod.sh", "--dry-run", *arguments, **TPU, **variables)
        assert status == 0 and err in ("", "note: changes since the last commit are not sent\n")
        return out

    kind = "--accelerator-type=kind --version=image"
    assert dry("create") == f"{GCLOUD} create pod {kind} --zone=zone\n"
    assert dry("create", SPOT="1", PROJECT="p") == f"{GCLOUD} create pod {kind} --spot --zone=zone --project=p\n"
    assert dry("delete") == f"{GCLOUD} delete pod --zone=zone\n"
    ssh = f"{GCLOUD} ssh pod --worker={{}} '--command={{}}' --zone=zone\n"
    follow = 'tail -n 100 -F score_sde_jax/run.log | sed -u "s/^/$(hostname): /"'
    assert dry("logs") == ssh.format("all", follow)
    assert dry("logs", WORKER="3") == ssh.format("3", follow)
    assert dry("stop") == ssh.format("all", 'kill -TERM "$(cat score_sde_jax/run.pid)"')


def test_tpu_dry_run_of_copy_and_run(shell, clone):
    script = clone / "launch" / "tpu_pod.sh"
    status, out, _ = shell.run(script, "--dry-run", "copy", PYTHON="python3.12", **TPU)
    archive = f"{clone}/.git/score_sde_jax.tar.gz"
    apt = "sudo apt-get -y -o DPkg::Lock::Timeout=600"
    install = (
        "set -e; mkdir -p score_sde_jax; tar -xzf score_sde_jax.tar.gz -C score_sde_jax; cd score_sde_jax;"
        rf" python3.12 -c '\''import ensurepip'\'' || {{ {apt} update; {apt} install python3.12-venv; }};"
        r" python3.12 -m venv .venv; .venv/bin/pip install -c constraints.txt -e '\''.[tpu,gcs]'\''"
    )
    assert status == 0 and out.splitlines() == [
        f"git -C {clone} archive --output={archive} HEAD",
        f"{GCLOUD} scp {archive} pod:score_sde_jax.tar.gz --worker=all --zone=zone",
        f"rm {archive}",
        f"{GCLOUD} ssh pod --worker=all '--command={install}' --zone=zone",
    ]
    status, out, err = shell.run(script, "--dry-run", "run", "--", *MAIN, "--workdir=gs://b/r", **TPU)
    start = (
        'set -e; cd score_sde_jax; . .venv/bin/activate; if [ -e run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null;'
        r" then echo '\''error: a run is under way; stop it first'\'' >&2; exit 1; fi;"
        " setsid python main.py --config=c.py --workdir=gs://b/r >>run.log 2>&1 </dev/null & echo $! >run.pid"
    )
    assert (status, err) == (0, "")
    assert out == f"{GCLOUD} ssh pod --worker=all '--command={start}' --zone=zone\n"


def test_tpu_copy_sends_the_last_commit_and_installs_it(shell, clone, gcloud):
    pip = '#!/bin/bash\necho "$PWD" "$@" >"$HOME/pip.call"\n'
    shell.fake(
        "python3.11", f"[[ $2 != venv ]] || {{ mkdir -p $3/bin; echo '{pip}' >$3/bin/pip; chmod +x $3/bin/pip; }}"
    )
    status, _, err = shell.run(clone / "launch" / "tpu_pod.sh", "copy", **TPU)
    assert (status, err) == (0, "note: changes since the last commit are not sent\n")
    with tarfile.open(shell.home / "score_sde_jax.tar.gz") as archive:
        names = {member.name for member in archive if member.isfile()}
    assert names == {"pyproject.toml", *(f"launch/{path.name}" for path in LAUNCH.iterdir())}
    there = shell.home / "score_sde_jax"
    assert (there / "pyproject.toml").read_text() == "committed\n"
    assert shell.calls("python3.11") == [["-c", "import ensurepip"], ["-m", "venv", ".venv"]]
    assert (shell.home / "pip.call").read_text() == f"{there} install -c constraints.txt -e .[tpu,gcs]\n"
    assert not (clone / ".git" / "score_sde_jax.tar.gz").exists()


def test_tpu_run_outlives_its_connection_and_stops_on_request(shell, clone, gcloud, program):
    there = shell.home / "score_sde_jax"
    (there / ".venv" / "bin").mkdir(parents=True)
    (there / ".venv" / "bin" / "activate").write_text("export XLA_FLAGS=activated\n")

    def pod(*arguments):
        return shell.run(clone / "launch" / "tpu_pod.sh", *arguments, **TPU)

    words = (*program, "--process_id=0", "--workdir=a $b", "--sleep=600")
    assert pod("run", "--", *words) == (0, "", "")
    eventually(lambda: started(shell) == 1)
    pid = int((there / "run.pid").read_text())
    assert os.getsid(pid) == pid
    assert pod("run", "--", *words) == (1, "", "error: a run is under way; stop it first\n")
    assert pod("stop") == (0, "", "")
    eventually(lambda: "saved on SIGTERM" in (there / "run.log").read_text())
    log = (there / "run.log").read_text().splitlines()
    assert log[0].endswith("--process_id=0 --workdir=a $b --sleep=600")
    assert log[1:] == ["environment None None activated", "saved on SIGTERM"]
