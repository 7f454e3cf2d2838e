"""Makes the pack and a real ComfyUI importable in tests, the way the host itself does it.

The repository's root must not be on ``sys.path``: ``nodes`` and ``tests`` are also modules of the
host. So the pack is registered as the package ``dit_acceleration_pack``, whose parts import each
other relatively, and the host's folder is put on the path.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from whole import one_case_each

from comfyui_environment import (
    NEWEST,
    ROOT,
    Environment,
    default_cache,
    existing_environment,
    is_newer,
    title_of,
)
from comfyui_server import Server
from live_client import LiveClient

if TYPE_CHECKING:
    from demo_measurement import Workflow

PACK = "dit_acceleration_pack"
COMFYUI = Path(os.environ.get("DIT_ACCEL_COMFYUI") or default_cache() / "hosts" / NEWEST)
ON_GPU = os.environ.get("DIT_ACCEL_DEVICE") == "gpu"


def load_pack() -> None:
    """Register the pack as a package without loading any of its modules."""
    spec = importlib.util.spec_from_file_location(
        PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)


def load_host() -> None:
    """Put ComfyUI on the path and choose its device before it looks for one."""
    if not (COMFYUI / "main.py").exists():
        pytest.exit(
            f"There is no ComfyUI in {COMFYUI}; run the tests with: python3 tests/run.py", 2
        )
    sys.path.insert(0, str(COMFYUI))
    import comfy.cli_args

    comfy.cli_args.args.cpu = not ON_GPU


load_host()
load_pack()


@pytest.fixture(scope="session", autouse=True)
def exact_float32() -> None:
    """Convolutions of float32 on CUDA compute in float32, not in TF32 as PyTorch allows them.

    TF32 keeps 10 bits: two right ways of computing the same, a last bit apart, are a fifth digit
    apart behind a convolution.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="session", autouse=ON_GPU)
def undisturbed_loading() -> Iterator[None]:
    """The garbage collector rests while the host makes room on a device and loads.

    The host walks its list of models by index there, and a model that the collector finds just then
    takes itself off that list. What a caught error refers to lives until the collector comes by.
    """
    import comfy.model_management as management

    load = management.load_models_gpu

    def undisturbed(*args: Any, **kwargs: Any) -> None:
        collects = gc.isenabled()
        gc.disable()
        try:
            load(*args, **kwargs)
        finally:
            if collects:
                gc.enable()

    management.load_models_gpu = undisturbed
    yield
    management.load_models_gpu = load


def host_version() -> str:
    text = (COMFYUI / "comfyui_version.py").read_text(encoding="utf-8")
    return text.partition('"')[2].partition('"')[0]


def pytest_report_header() -> list[str]:
    device = "GPU" if ON_GPU else "CPU"
    lines = [f"{title_of(host_version())}, on the {device}: {COMFYUI}"]
    if is_newer(host_version()):
        lines.append("What it has more or otherwise than the pinned ones is skipped, not an error.")
    return lines


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-case", action="store_true", help="of each test the first case only")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--one-case"):
        items[:], rest = one_case_each(items)
        config.hook.pytest_deselected(items=rest)
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if ON_GPU and torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device and tests/run.py --gpu")
    for item in gpu_items:
        item.add_marker(skip)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The ComfyUI under test, run by the interpreter of the tests."""
    return existing_environment(COMFYUI, sys.executable, tmp_path_factory.mktemp("cache"), ())


@pytest.fixture(scope="session")
def server(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real ComfyUI server with this pack and its demo pack, started when first asked for."""
    device = "auto" if ON_GPU else "cpu"
    with Server(environment, device, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def workflow(server: Server) -> Workflow:
    """The demo's workflow, as the server's nodes take it."""
    from demo_measurement import Workflow

    return Workflow(server)


@pytest.fixture
def client(server: Server) -> Iterator[LiveClient]:
    """Hears what the server sends while it is there."""
    with LiveClient(server) as listening:
        yield listening
