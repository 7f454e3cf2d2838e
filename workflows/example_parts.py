"""What the example workflows share: their description, our nodes in them, how they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from example_builder import Graph, Node, Output

Source = Node | Output

SEED = 1
ACCELERATION = "Acceleration"
NOTE_WIDTH = 460

FOX = (
    "A red fox trots along a frozen lake shore at dawn, low sun behind it, breath visible in the "
    "cold air, snow crystals drifting, shallow depth of field, natural colours"
)
SHOP = (
    "A small bookshop on a rainy evening, warm light in the window, a hand-painted sign above the "
    'door reads "OPEN UNTIL MIDNIGHT", reflections on wet cobblestones, photograph, 35 mm'
)
FLAWS = "blurry, overexposed, static, low quality, compression artifacts, subtitles, deformed hands"

WHAT_IT_DOES = (
    "**Performance Mode** sits between the model and the sampler. *approximation* says how much "
    "of the picture may change for speed: `off` changes nothing, `quality` and `balanced` are for "
    "everyday use, `fast` and `ultra` for drafts. The report tells what was skipped and why."
)


FEW_STEPS = (
    "**Quantize Model** makes the weights smaller and, where the GPU can, the arithmetic faster; "
    "it keeps the layers that would hurt, and says how much the model changed. **Attention "
    "Backend** takes the fastest exact kernel. Neither skips anything, so both help models of few "
    "steps. The report tells what was measured."
)

COARSE_FIRST = (
    "**Progressive Resolution** lets the model work on a smaller picture while the noise hides "
    "detail; the sampler, the seed and the previews keep the full size. It changes the picture: "
    "compare with *mode* `off` before you rely on it. With text in the picture keep `fine`. "
    f"{WHAT_IT_DOES}"
)


@dataclass(frozen=True)
class File:
    """A file that an example needs: where it goes, its name, its model page, its place there."""

    folder: str
    name: str
    page: str
    place: str = "split_files/{folder}/"

    @property
    def url(self) -> str:
        """Where it is offered, as in the host's own templates."""
        place = self.place.format(folder=self.folder)
        return f"https://huggingface.co/{self.page}/resolve/main/{place}{self.name}"

    def as_model(self) -> dict[str, str]:
        """What tells the page where a node's missing file comes from."""
        return {"name": self.name, "url": self.url, "directory": self.folder}


@dataclass(frozen=True)
class Recipe:
    """One example: its file name, what it shows, the files it needs, and how it is built."""

    name: str
    model: str
    task: str
    about: str
    files: tuple[File, ...]
    build: Callable[[Graph], None]
    nodes: str = WHAT_IT_DOES
    """What our nodes do in it."""

    def note(self) -> str:
        rows = "\n".join(f"- `{f.folder}`: [{f.name}]({f.url})" for f in self.files)
        return (
            f"## {self.model}: {self.task}\n\n{self.about}\n\n{self.nodes}\n\n### Files\n\n"
            "ComfyUI offers to download those that are missing. By hand, they go into these "
            f"folders of `models`:\n\n{rows}\n"
        )


def accelerate(graph: Graph, model: Source, title: str = "", coarse_first: bool = False) -> Node:
    """The one place that says which of our nodes the examples show."""
    if coarse_first:
        model = graph.node("AccelProgressiveResolution", model=model, mode="auto")
    return graph.node(
        "AccelPerformanceMode", title, model=model, mode="auto", approximation="balanced"
    )


def ksampler(
    graph: Graph,
    model: Source,
    conds: tuple[Source, Source],
    latent: Source,
    steps: int,
    cfg: float,
    sampler: str,
    title: str = "",
) -> Node:
    """The sampler of most examples; ``conds`` are the positive and the negative prompt."""
    return graph.node(
        "KSampler",
        title,
        model=model,
        positive=conds[0],
        negative=conds[1],
        latent_image=latent,
        seed=SEED,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler,
        scheduler="simple",
    )


def report(graph: Graph, model: Source, after: Source, which: str = "") -> None:
    """The report of the run that made `after`, and a node that shows it."""
    told = graph.node("AccelReport", f"{which}Report".capitalize(), model=model, after=after)
    graph.node("PreviewAny", f"{which}Report, as text".capitalize(), source=told["text"])


def save_video(
    graph: Graph, name: str, images: Source, fps: float, audio: Source | None = None
) -> None:
    video = graph.node("CreateVideo", images=images, fps=fps, audio=audio)
    graph.node("SaveVideo", video=video, filename_prefix=f"video/{name}")


def simple_schedule(graph: Graph, model: Node, steps: int) -> Node:
    return graph.node("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0)


def guided(
    graph: Graph,
    model: Node,
    positive: Source,
    negative: Source,
    latent: Node,
    cfg: float,
    sigmas: Node,
) -> Node:
    return graph.node(
        "SamplerCustomAdvanced",
        noise=graph.node("RandomNoise", noise_seed=SEED),
        guider=graph.node("CFGGuider", model=model, positive=positive, negative=negative, cfg=cfg),
        sampler=graph.node("KSamplerSelect", sampler_name="euler"),
        sigmas=sigmas,
        latent_image=latent,
    )
