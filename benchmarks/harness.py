"""What the benchmarks share: a real ComfyUI, the demo model, sampling, comparing, describing.

Every benchmark is a script that needs nothing but Python: it makes the environment of the tests
(or takes an existing ComfyUI with ``--comfyui``) and runs itself again inside it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from turns import Laps, Sample, synchronize

from comfyui_environment import (
    ROOT,
    Environment,
    SetupError,
    add_arguments,
    ensure_environment,
    say,
)

if TYPE_CHECKING:
    import torch

RESULTS = ROOT / "benchmarks" / "results"
MODEL = ROOT / "workflows" / "demo" / "models" / "dit_accel_demo_flux.safetensors"
PACK = "dit_acceleration_pack"
NEEDS = ("torch", "cache_dit", "numpy", "skimage", "safetensors")
INSIDE = "DIT_ACCEL_BENCHMARK_INSIDE"
# glibc gives freed memory back to the system and fetches it again, more or less often with every
# change of what is kept in between; on small models that costs more than what is measured here.
# These keep it, in full runs and accelerated ones alike.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**25)}

Settings = Mapping[str, Any]


def run(script: str, add_options: Callable[[argparse.ArgumentParser], None], main: Any) -> None:
    """Run ``main(options, environment)`` inside a ready environment and exit with its status."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_options(parser)
    parser.add_argument("--gpu", action="store_true", help="let ComfyUI use the GPU")
    add_arguments(parser)
    options = parser.parse_args()
    try:
        environment = ensure_environment(
            options.host_version, options.comfyui, options.python, needs=NEEDS
        )
        if os.environ.get(INSIDE):
            load_host(environment, options.gpu)
            sys.exit(main(options, environment))
        command = [str(environment.python), script, *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, **KEEP_MEMORY, INSIDE: "1"}).returncode)
    except SetupError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def load_host(environment: Environment, gpu: bool) -> None:
    """Make ComfyUI and, as a package of its own name, this pack importable."""
    # The repository's root stays off the path: it has modules named like the host's.
    sys.path.insert(0, str(environment.comfyui))
    import comfy.cli_args

    comfy.cli_args.args.cpu = not gpu
    load_file(PACK, ROOT / "__init__.py", package=ROOT)


def load_file(name: str, path: Path, package: Path | None = None) -> ModuleType:
    """Import one file under a name of our choice."""
    search = [str(package)] if package else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Demo:
    """The demo model with its prompts and its decoder."""

    between_steps: Callable[[], None] = staticmethod(lambda: None)
    """Called after every step; not part of a sample's time."""

    def __init__(self) -> None:
        self.shapes = load_file("demo_shapes", ROOT / "workflows" / "demo" / "shapes.py")
        self.prompts: tuple[str, ...] = self.shapes.PROMPTS
        self.calls = 0
        self.model = self.load()

    def load(self) -> Any:
        """A MODEL of its own, loaded from the file by the host, whose calls are counted."""
        import comfy.sd
        from comfy.patcher_extension import WrappersMP

        model = comfy.sd.load_diffusion_model(str(MODEL))
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "benchmark_count", self._count)
        return model

    def _count(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return executor(*args, **kwargs)

    def conditioning(self, prompt: str | None) -> list[Any]:
        """A CONDITIONING; None is the negative one."""
        tokens, pooled = self.shapes.text_embedding(prompt or self.shapes.UNCONDITIONAL)
        return [[tokens, {"pooled_output": pooled}]]

    def empty(self, side: int | None = None) -> torch.Tensor:
        """A latent of zeros at the size that the model was trained at, or another."""
        import torch

        side = side or self.shapes.LATENT_SIZE
        return torch.zeros(1, self.shapes.LATENT_CHANNELS, side, side)

    def sample(
        self, model: Any, prompt: str, seed: int, cfg: float, steps: int, sampler: str = "euler"
    ) -> Sample:
        """Sample from noise with the scheduler "simple", as KSampler does."""
        return self.sample_sigmas(model, prompt, seed, cfg, self.sigmas(steps), sampler)

    def sigmas(self, steps: int) -> torch.Tensor:
        """The schedule ``[steps + 1]`` of the scheduler "simple"."""
        import comfy.samplers

        sampling = self.model.get_model_object("model_sampling")
        return comfy.samplers.calculate_sigmas(sampling, "simple", steps)

    def sample_sigmas(
        self,
        model: Any,
        prompt: str,
        seed: int,
        cfg: float,
        sigmas: torch.Tensor,
        sampler: str,
        start: torch.Tensor | None = None,
        add_noise: bool = True,
    ) -> Sample:
        """Sample along any sigmas, as SamplerCustom does; from noise alone without a ``start``."""
        import comfy.sample
        import torch

        start = self.empty() if start is None else start
        noise = comfy.sample.prepare_noise(start, seed)
        noise = noise if add_noise else torch.zeros_like(noise)
        positive = self.conditioning(prompt)
        return self._solve(model, noise, positive, cfg, sigmas, sampler, start, seed)

    def sample_batch(
        self,
        model: Any,
        runs: Sequence[tuple[str, int]],
        cfg: float,
        sigmas: torch.Tensor,
        sampler: str = "euler",
    ) -> Sample:
        """Prompts with a seed each as the rows of one batch, each as when it is sampled alone."""
        import comfy.sample
        import torch

        empty = self.empty()
        noise = torch.cat([comfy.sample.prepare_noise(empty, seed) for _, seed in runs])
        positive = self.conditionings([prompt for prompt, _ in runs])
        start = empty.repeat(len(runs), *[1] * (empty.ndim - 1))
        return self._solve(model, noise, positive, cfg, sigmas, sampler, start)

    def conditionings(self, prompts: Sequence[str]) -> list[Any]:
        """A CONDITIONING with a row a prompt."""
        import torch

        tokens, rest = zip(*(self.conditioning(prompt)[0] for prompt in prompts), strict=True)
        more = {key: torch.cat([each[key] for each in rest]) for key in rest[0]}
        return [[torch.cat(tokens), more]]

    def _solve(
        self,
        model: Any,
        noise: torch.Tensor,
        positive: list[Any],
        cfg: float,
        sigmas: torch.Tensor,
        sampler: str,
        start: torch.Tensor,
        seed: int = 0,
    ) -> Sample:
        import comfy.sample
        import comfy.samplers
        import torch

        solver = comfy.samplers.sampler_object(sampler)
        with torch.inference_mode():
            synchronize()
            self.calls = 0
            laps = Laps(self.between_steps)
            latent = comfy.sample.sample_custom(
                model, noise, cfg, solver, sigmas, positive, self.conditioning(None), start,
                callback=laps, disable_pbar=True, seed=seed,
            )  # fmt: skip
            synchronize()
            taken = laps.taken()
            return Sample(latent, sum(taken), self.calls, taken)

    def picture(self, latent: torch.Tensor) -> Any:
        """Decode to RGB in 0..1, ``[H, W, 3]``, as a numpy array."""
        picture = self.shapes.model_to_picture(self.shapes.host_to_model(latent.float().cpu()))
        return picture[0].movedim(0, -1).numpy()


def accelerate(model: Any, **settings: Any) -> Any:
    """The model behind Apply Cache-DiT with these settings."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
    from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

    return host.attach(model, CacheDiT(CacheDiTSettings(**settings)))


def report_of(model: Any) -> Any:
    """The report of the model's last sampling run."""
    from dit_acceleration_pack.acceleration import host

    report = host.last_report(model)
    assert report is not None
    return report


def psnr(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the range of the reference."""
    error = float((reference - other).double().square().mean())
    peak = float(reference.max() - reference.min())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ssim(reference: Any, other: Any) -> float:
    """Structural similarity of two RGB pictures in 0..1, ``[H, W, 3]``."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(reference, other, channel_axis=-1, data_range=1.0))


def describe(environment: Environment) -> dict[str, Any]:
    """The machine and the versions that figures belong to."""
    from importlib.metadata import version

    import torch

    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pack = re.search(r'^version = "(.+)"', text, re.MULTILINE)
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    packages = attention_packages()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "comfyui": environment.version,
        "cache_dit": version("cache-dit"),
        "pack": pack[1] if pack else "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **({"attention_packages": packages} if packages else {}),
    }


def attention_packages() -> dict[str, str]:
    """Versions of the attention packages that are installed, by distribution."""
    from dit_acceleration_pack.acceleration.attention import BACKENDS
    from dit_acceleration_pack.acceleration.attention.backend import is_installed

    found = (b for b in BACKENDS.values() if b.distribution and is_installed(b.module))
    return {backend.distribution: backend.version() for backend in found}


def processor() -> str:
    """The model name of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def add_results_options(parser: argparse.ArgumentParser, name: str) -> None:
    """``--output``, by default a file of the results, and ``--resume``: see ``begun``."""
    parser.add_argument("--resume", action="store_true", help="keep rows of the output file")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{name}.json")


def begun(options: argparse.Namespace, environment: Environment) -> dict[str, Any]:
    """Results to add to: with ``--resume`` those that the output file has."""
    data: dict[str, Any] = {"environment": describe(environment), "rows": []}
    if options.resume and options.output.exists():
        data["rows"] = json.loads(options.output.read_text(encoding="utf-8"))["rows"]
    return data


def write(path: Path, data: Mapping[str, Any], tell: bool = True) -> None:
    """Write results as JSON, one row a line so that changes are easy to review.

    Whoever is stopped meanwhile leaves the earlier file.
    """
    rows = ",\n    ".join(json.dumps(row) for row in data["rows"])
    rest = {key: value for key, value in data.items() if key != "rows"}
    head = json.dumps(rest, indent=2)[:-2]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(f'{head},\n  "rows": [\n    {rows}\n  ]\n}}\n', encoding="utf-8")
    part.replace(path)
    if tell:
        say(f"Wrote {path}")


def in_processes(
    script: str, tasks: Sequence[Sequence[str]], options: argparse.Namespace
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a benchmark's parts as they come, ``options.jobs`` at once of one thread each.

    A task is the arguments of the script that choose a part of its rows.
    """

    def rows_of(task: Sequence[str]) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "rows.json"
            command = [sys.executable, script, *task, "--output", str(output)]
            for name in ("comfyui", "python"):
                if getattr(options, name):
                    command += [f"--{name}", str(getattr(options, name))]
            one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(command, env=one_thread, stdout=subprocess.DEVNULL, check=True)
            rows: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))["rows"]
        say(" ".join(task))
        return rows

    with ThreadPoolExecutor(options.jobs) as pool:
        for done in as_completed([pool.submit(rows_of, task) for task in tasks]):
            yield done.result()


def rounded(row: Mapping[str, Any], digits: int = 4) -> dict[str, Any]:
    """A row with its numbers cut to a sensible length."""
    return {k: round(v, digits) if isinstance(v, float) else v for k, v in row.items()}


def show(*rows: Mapping[str, Any]) -> None:
    """Print rows of results as they are written, one a line."""
    for row in rows:
        say(json.dumps(row))
