"""Split Across GPUs in real servers and processes with a real Ray, and what is left of them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from comfyui_environment import Environment
from comfyui_server import Server, failure_of, free_port
from demo_measurement import REPORT, SAMPLER, Workflow, find, latent_key
from dit_acceleration_pack.acceleration.cluster import connection
from dit_acceleration_pack.acceleration.errors import AccelerationError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.whole,
    pytest.mark.server,
    pytest.mark.skipif(not connection.is_installed(), reason="Ray is not installed here"),
]

CLOSE = 1e-5
TESTS = str(Path(__file__).parents[1])
GONE_WITHIN = 180.0
"""Seconds. Two of Ray's agents look for their Ray for a minute before they end."""
SPLIT = {"class_type": "AccelSplitAcrossGPUs"}


@pytest.fixture(autouse=True)
def ranks_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIT_ACCEL_SPLIT_ON_CPU", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", TESTS)


def split_prompt(workflow: Workflow, seed: int) -> dict[str, Any]:
    """The demo's workflow, plain beside split over two processes."""
    graph = workflow.filled(workflow.prompts[0], seed, 3.0, 3)
    model = graph[workflow.apply]["inputs"]["model"]
    graph[workflow.apply] = SPLIT | {"inputs": {"model": model, "gpus": 2, "split": "sequence"}}
    return graph


def report_of(workflow: Workflow, outputs: dict[str, Any]) -> dict[str, Any]:
    (key,) = find(workflow.prompt, REPORT)
    report: dict[str, Any] = json.loads(outputs[key]["text"][1])["split"]
    return report


def latents_of(workflow: Workflow, outputs: dict[str, Any]) -> list[torch.Tensor]:
    """Of both samplers."""
    files = [outputs[latent_key(key)]["latents"][0] for key in find(workflow.prompt, SAMPLER)]
    return [load_file(workflow.server.file(one))["latent_tensor"] for one in files]


def started_by(server: Server) -> set[psutil.Process]:
    assert server._process is not None
    return set(psutil.Process(server._process.pid).children(recursive=True))


def ranks_of(processes: set[psutil.Process]) -> set[int]:
    """Ray names its processes by the class of the actor that they are."""
    return {one.pid for one in processes if "Rank" in " ".join(one.cmdline())}


def heard_at(processes: set[psutil.Process]) -> set[str]:
    """Addresses at which processes listen."""
    found = [one.net_connections("inet") for one in processes if one.is_running()]
    heard = {each.laddr.ip for those in found for each in those if each.status == "LISTEN"}
    return {address.removeprefix("::ffff:") for address in heard}


def check_all_gone(processes: set[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, GONE_WITHIN)
    assert not alive


def test_three_prompts_in_a_queue_use_the_same_processes(
    environment: Environment, tmp_path: Path
) -> None:
    with Server(environment, "cpu", tmp_path) as server:
        workflow = Workflow(server)
        queued = [server.submit(split_prompt(workflow, seed)) for seed in (1, 2, 3)]
        started = []
        ranks = []
        for prompt in queued:
            entry = server.wait(prompt)
            assert failure_of(entry) is None
            split = report_of(workflow, entry["outputs"])
            started.append(split["started"] is not None)
            assert [rank["sent"] > 0 for rank in split["ranks"]] == [True, True]
            ranks.append(ranks_of(started_by(server)))
            assert heard_at(started_by(server)) == {"127.0.0.1"}
            one, other = latents_of(workflow, entry["outputs"])
            assert float((one - other).abs().max() / one.abs().max()) <= CLOSE
        assert started == [True, False, False]
        assert len(ranks[0]) == 2 and ranks[0] == ranks[1] == ranks[2]
        left = started_by(server)
    check_all_gone(left)


def test_a_killed_server_leaves_no_process(environment: Environment, tmp_path: Path) -> None:
    with Server(environment, "cpu", tmp_path) as server:
        workflow = Workflow(server)
        server.run(split_prompt(workflow, 1))
        left = started_by(server)
        assert len(ranks_of(left)) == 2
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        check_all_gone(left)


def until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.05)


DRIVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import conftest
from split_factory import tiny
from tiny_models import sample
from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.settings.parallel import ParallelSettings
model = tiny("flux")
far = host.attach_split(
    model, ParallelSettings(gpus=2, ray_address=sys.argv[3], split="sequence")
)
difference = (sample(far, "flux", steps=2) - sample(model, "flux", steps=2)).abs().max()
print(f"sampled {difference}", flush=True)
if sys.argv[2] == "wait":
    time.sleep(600)
"""


def processes_in(folder: Path) -> list[int]:
    """Processes that were started in a folder. (Ray's write over their environment.)"""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", ["ends", "wait"])
def test_no_process_is_left_when_the_host_ends_or_is_killed(how: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, TESTS, how, ""]
    driver = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE)
    assert driver.stdout is not None
    said = iter(driver.stdout.readline, b"")
    assert any(line.startswith(b"sampled ") for line in said)
    if how == "wait":
        assert len(processes_in(tmp_path)) > 4
        driver.kill()
    driver.wait(60)
    until(lambda: not processes_in(tmp_path), GONE_WITHIN)


def test_a_cluster_that_is_running_is_reached_by_its_address(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("ray"))
    port, here = free_port(), outward_address()
    given = [f"--node-ip-address={here}", f"--port={port}", "--num-cpus=2", "--block"]
    given += ["--include-dashboard=false", "--disable-usage-stats"]
    # Ray asks whoever comes for a token, which this cluster gets for the test.
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = subprocess.Popen(
        [program, "start", "--head", *given, "--object-store-memory=80000000"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: answers(f"{here}:{port}"), 120)
        command = [sys.executable, "-c", DRIVER, TESTS, "ends", f"{here}:{port}"]
        said = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, timeout=300, text=True
        )
        (line,) = [line for line in said.stdout.splitlines() if line.startswith("sampled ")]
        assert float(line.split()[1]) <= 10 * CLOSE
        assert head.poll() is None, "the cluster is somebody else's and stays"
    finally:
        head.terminate()
        head.wait(60)
    until(lambda: not processes_in(tmp_path), GONE_WITHIN)


def outward_address() -> str:
    """As Ray finds it, in a process of its own."""
    ask = "import ray; print(ray.util.get_node_ip_address())"
    said = subprocess.run(
        [sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True
    )
    return said.stdout.split()[-1]


def answers(address: str) -> bool:
    try:
        connection._require_answer(address)
    except AccelerationError:
        return False
    return True
