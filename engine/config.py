"""Every setting, its default and its meaning, once. The CLI's options are these fields."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from qvl.engine.errors import ConfigError

Dtype: TypeAlias = Literal["auto", "bfloat16", "float16", "float32"]

SHARE = 0.9
"""Of a GPU's memory that the models on it may take; the rest is the driver's and the allocator's."""
LEAST_SHARE = 0.05
"""That a second model is left: less holds no model and its cache on any GPU."""
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
"""As browsers send it: they compare no more than the letters."""
PORTS = 65_535
TOKEN_PIXELS = 32 * 32
"""Of what becomes one token of an image."""
_MAX_PIXELS = (200 * TOKEN_PIXELS, 8192 * TOKEN_PIXELS)
"""With less, the narrowest image that is accepted would be cut to nothing; no prompt has room for more."""
BUNDLED = "bundled"
"""As a model: the demo's tiny pair, or the one of its place."""


def option(name: str) -> str:
    """A setting as messages call it: as on the command line."""
    return f"--{name.replace('_', '-')}"


def check_numbers(
    settings: Any, *, zero: Collection[str] = (), most: Mapping[str, float] | None = None
) -> None:
    """Every number of a dataclass: finite, above 0 (`zero` names those that may be 0), and at most `most` of
    its name. Raises ConfigError, which names it and its bounds."""
    for each in fields(settings):
        value, largest = getattr(settings, each.name), (most or {}).get(each.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if 0 < value <= (largest or sys.float_info.max) or (value == 0 and each.name in zero):
            continue
        least = (
            "at least 0" if each.name in zero else "above 0" if "float" in str(each.type) else "at least 1"
        )
        limit = f" and at most {largest:g}" if largest else "" if value <= 0 else " and finite"
        raise ConfigError(f"{option(each.name)} must be {least}{limit}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for; each has an error of its own that names it."""

    body_bytes: int = 64 << 20
    """Bytes of one request body."""
    bodies_bytes: int = 2 << 30
    """Bytes of all request bodies in memory at once; over it: 429 with Retry-After."""
    items: int = 2048
    """Items of one embedding request."""
    documents: int = 1000
    """Documents of one rerank request."""
    images: int = 32
    """Images of one item."""
    videos: int = 4
    """Videos of one item."""
    frames: int = 512
    """Frames of one video given as a list of images, before sampling."""
    image_pixels: int = 64_000_000
    """Width times height of one image, read from its header before decoding."""
    queue_tokens: int = 2_000_000
    """Estimated tokens in progress at once, over all requests; over it: 429 with Retry-After."""
    request_pixels: int = 512_000_000
    """Pixels of all media of one request after resizing; three bytes of memory each."""
    media_bytes: int = 48 << 20
    """Encoded bytes of one image or video, fetched or inline."""
    video_seconds: float = 600.0
    """Length of one video file."""
    decode_seconds: float = 60.0
    """Time to decode and resize one image or video; a page of a PDF has 10 at most."""
    fetch_seconds: float = 10.0
    """Time to fetch one URL, redirects included."""
    redirects: int = 3
    """Redirects followed for one URL."""

    def __post_init__(self) -> None:
        check_numbers(self, zero=("images", "videos", "redirects"))


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """Where pixels come from."""

    workers: int = 0
    """Decoding processes of a replica (0: one per core, shared out among the replicas)."""
    media_memory: int = 512 << 20
    """Bytes of decoded pixels that a replica shares with its engines; the most recent media stay in it."""
    media_cache: bool = True
    """Reuse decoded images and videos that are still in --media-memory."""
    file_roots: tuple[str, ...] = ()
    """Folders below which file:// URLs may be read (none: file:// is refused)."""
    url_fetch: bool = True
    """Fetch http(s) URLs."""
    allow_hosts: tuple[str, ...] = ()
    """host[:port] names that may resolve to private addresses (none: all private addresses are refused)."""
    max_pixels: int = 1800 * TOKEN_PIXELS
    """Pixels that an image (not a video) is scaled down to at most, 1024 for each of its tokens: fewer cost
    less and show less. The default is the models' own; an index keeps to one number."""
    min_pixels: int = 4 * TOKEN_PIXELS
    """Pixels that an image is scaled up to at least."""

    def __post_init__(self) -> None:
        check_numbers(self, zero=("workers",))
        least, most = max(_MAX_PIXELS[0], self.min_pixels), _MAX_PIXELS[1]
        if not least <= self.max_pixels <= most:
            raise ConfigError(f"--max-pixels must be {least} to {most}, got {self.max_pixels}")
        if not all(self.file_roots):
            raise ConfigError(
                "a folder of --file-roots is empty; leave the option out to refuse file:// URLs"
            )


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """One replica: an embedder and/or a reranker on one device."""

    models: tuple[str, ...] = ()
    """Checkpoint folders or hub names (NAME@REVISION: that branch, tag or commit), whose role they tell."""
    embedder: str | None = None
    """Checkpoint folder or hub name of the embedding model."""
    reranker: str | None = None
    """Checkpoint folder or hub name of the reranking model."""
    embedder_name: tuple[str, ...] = ()
    """Name that requests may use; answers say the first (default: the checkpoint's last path part). What the
    command line calls it is always taken."""
    reranker_name: tuple[str, ...] = ()
    """The reranker's names, in the same way."""
    dtype: Dtype = "auto"
    """Of weights and activations; auto: the checkpoint's, bfloat16 for float32 where the device has it."""
    quantization: str | None = None
    """Quantise the weights while they load: fp8 (a scale for each channel and token; for each matrix on a GPU
    that does not compute in FP8), or the vLLM name of another method that works at load time."""
    quantize_vision: bool = False
    """Quantise the vision tower as well; needs --quantization."""
    lora: tuple[str, ...] = ()
    """NAME=FOLDER of a LoRA adapter of the text layers; requests choose it as their model, by NAME."""
    embedder_memory: float | None = None
    """Share of the GPU's memory for the embedder (default: 0.9 alone; beside a reranker 0.45, or what its
    share leaves of 0.9). Without a GPU 0.9 is all of the machine's. Replicas on one device divide it."""
    reranker_memory: float | None = None
    """The reranker's share, in the same way."""
    tensor_parallel: int = 1
    """GPUs that one model is split over."""
    max_batched_tokens: int | None = None
    """Tokens of one engine step (default: 16384 on a GPU, 8192 on a CPU)."""
    prefix_caching: bool | None = None
    """Keep the KV blocks of shared prefixes (default: the reranker's only; an embedder's prefix is short)."""
    answer_cache: int = 64 << 20
    """Bytes of answers that each model keeps, so that no item or pair is computed again (0: none)."""
    enforce_eager: bool | None = None
    """No torch.compile and no CUDA graphs: a faster start, slower answers (default: the bundled pair, and
    where a CPU has no C++ compiler)."""
    stall_seconds: float = 120.0
    """Seconds without a sign of life after which an engine process, or one of several replicas, counts as
    hung: the server exits with 3, a replica is restarted. More than the longest step takes; 0: never."""
    limits: Limits = field(default_factory=Limits)
    media: MediaConfig = field(default_factory=MediaConfig)

    def __post_init__(self) -> None:
        if self.embedder is None and self.reranker is None and not self.models:
            raise ConfigError(
                "no model: give --embedder and/or --reranker a checkpoint folder or hub name; a server is "
                "given just that, `qvl serve Qwen/Qwen3-VL-Embedding-2B Qwen/Qwen3-VL-Reranker-2B`, or "
                f"`qvl serve {BUNDLED}` for the demo's tiny pair"
            )
        if self.quantize_vision and self.quantization is None:
            raise ConfigError(
                "--quantize-vision needs --quantization, as fp8; a quantised checkpoint tells of what itself"
            )
        shares = {"embedder_memory": 1, "reranker_memory": 1}
        check_numbers(self, zero=("answer_cache", "stall_seconds"), most=shares)
        total = (self.embedder_memory or 0) + (self.reranker_memory or 0)
        if self.two and total > 1:
            raise ConfigError(f"--embedder-memory + --reranker-memory is {total:g}; keep their sum within 1")
        alone = None in (self.embedder_memory, self.reranker_memory)
        if self.two and alone and total > SHARE - LEAST_SHARE:
            raise ConfigError(
                f"{total:g} of the GPU's memory for one model leaves too little for the other: give both, "
                f"--embedder-memory and --reranker-memory, {SHARE:g} together"
            )

    @property
    def two(self) -> bool:
        """Whether both roles are there."""
        return sum(map(bool, (*self.models, self.embedder, self.reranker))) + self.models.count(BUNDLED) > 1


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The HTTP side of one replica."""

    engine: EngineConfig
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every interface."""
    port: int = 8080
    """Port to listen on; 0 is a free one."""
    replicas: int = 1
    """Replicas behind the port; they take the GPUs in turn, and those on one GPU divide its memory."""
    tls_cert: str | None = None
    """PEM file with the certificate and its chain: https instead of http."""
    tls_key: str | None = None
    """PEM file with its private key, unencrypted (default: it is in --tls-cert)."""
    api_key: tuple[str, ...] = ()
    """Accepted keys (none: open); clients send `Authorization: Bearer KEY`. `KEY name=N rpm=600` names it and
    bounds its requests a minute (of each replica); of one name: together. `only=metrics` opens that alone."""
    api_key_file: str | None = None
    """A file with one key a line, as in --api-key; blank lines and # comments are skipped."""
    cors_origin: tuple[str, ...] = ()
    """Origin whose pages may call and read the answers, as https://app.example; *: any (none: no CORS)."""
    keep_alive_seconds: int = 75
    """How long a connection may be idle; keep it above what a proxy in front allows (`engine/OPERATE.md`)."""
    linger_seconds: float = 0.0
    """After SIGTERM, for load balancers: so long /health/ready is 503 and requests are still answered."""
    drain_seconds: float = 6.0
    """How long requests in flight may take to finish after SIGTERM, or after --linger-seconds; 2 s later
    (with --replicas 4) the server is gone: a service manager must wait that long before it kills."""
    request_seconds: float = 120.0
    """Deadline of one request; over it: 504."""
    index: str | None = None
    """What /v1/search looks in: a folder that `qvl search add` fills, or Qdrant's http://HOST:6333/COLLECTION."""
    index_key: str | None = None
    """API key of that Qdrant."""
    otlp: str | None = None
    """OTLP/HTTP collector of traces, as http://localhost:4318 (default: OTEL_EXPORTER_OTLP_ENDPOINT)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level on stderr; info: a line for each refusal but 429s, at most 50 a second; debug: for all."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""

    def __post_init__(self) -> None:
        check_numbers(self, zero=("port", "linger_seconds", "drain_seconds"), most={"port": PORTS})
        if self.tls_key and not self.tls_cert:
            raise ConfigError("--tls-key needs --tls-cert, the certificate of that key")
        for origin in self.cors_origin:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"--cors-origin is SCHEME://HOST[:PORT] in lower case with no path, or *; got {origin!r}"
                )
