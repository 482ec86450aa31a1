"""`POST /v1/embeddings`: OpenAI's request, and what others add on the same path.

vLLM, Jina, SGLang, TEI, Voyage, NVIDIA. What they call `task`, `input_type` or `prompt_name` asks for an
instruction, as `tasks` has it: vectors of queries and of documents differ, as in Cohere's API here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict, TypeVar

import msgspec

from qvl.engine.dialects import inputs, messages, parts, tasks, vectors
from qvl.engine.dialects.fields import Body, Count, Truncate, Urgency, agreed, cuts, one_of, priority, refuse
from qvl.engine.dialects.usage import Usage, usage
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, OnError, Tokens

T = TypeVar("T", Content, Content | Tokens)
Conversation: TypeAlias = Annotated[list[messages.Message], msgspec.Meta(min_length=1)]
TruncateTo: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]


class TemplateArguments(Body):
    """vLLM's `chat_template_kwargs`; the one argument that this template has."""

    instruction: str | None = None


class Nothing(Body):
    """An empty object."""


class ProcessorOptions(parts.Seen):
    """vLLM's `mm_processor_kwargs`; of the frames of videos, as beside it, and of all media."""

    do_sample_frames: bool | None = None
    """They are always."""


class Options(parts.Sampling):
    """vLLM's common fields. Those with no effect here exist elsewhere only to obtain the right prompt, or
    tell a proxy in between what to do."""

    model: str | None = None
    user: str | None = None
    request_id: str | None = None
    rid: str | list[str] | None = None
    """SGLang's `request_id`."""
    metadata: dict[str, Any] | None = None
    """Mistral's and LiteLLM's."""
    drop_params: bool | None = None
    """LiteLLM's, which RAGFlow sends to every server."""
    priority: Urgency | None = None
    cache_salt: str | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    padding: Literal["do_not_pad"] | None = None
    truncation_side: Literal["right"] | None = None
    chat_template_kwargs: TemplateArguments | None = None
    chat_template: None = None
    mm_processor_kwargs: ProcessorOptions | None = None
    media_io_kwargs: Nothing | None = None
    truncate_prompt_tokens: TruncateTo | None = None
    """Cut to this many tokens; -1: to the model's length."""
    instruction: str | None = None
    instruct: str | None = None
    """SGLang's `instruction`."""
    on_error: OnError = "fail"
    """`skip`: a bad item becomes an error entry and the others are answered."""

    def asked_instruction(self) -> str | None:
        told = self.chat_template_kwargs.instruction if self.chat_template_kwargs else None
        return agreed(
            {
                "instruction": self.instruction,
                "instruct": self.instruct,
                "chat_template_kwargs.instruction": told,
            }
        )

    def sampled(self, given: tuple[T, ...]) -> tuple[T, ...]:
        """With the request's `fps` and `max_frames` where items have none, as the reference's `process` takes
        them, and with its limits."""
        told = self.mm_processor_kwargs or ProcessorOptions()
        never = "the frames of a video are always sampled"
        refuse(told.do_sample_frames is False, "mm_processor_kwargs.do_sample_frames", never)
        fps = agreed({"fps": self.fps, "mm_processor_kwargs.fps": told.fps})
        most = agreed({"max_frames": self.max_frames, "mm_processor_kwargs.max_frames": told.max_frames})
        if fps is most is told.min_pixels is told.max_pixels is told.total_pixels is None:
            return given
        return tuple(
            parts.limited(parts.sampled(each, fps, most), told) if isinstance(each, Content) else each
            for each in given
        )

    def max_tokens(self) -> int | None:
        if self.truncate_prompt_tokens == 0:
            raise BadRequest(
                "truncate_prompt_tokens: must be -1 or at least 1", param="truncate_prompt_tokens"
            )
        return None if self.truncate_prompt_tokens == -1 else self.truncate_prompt_tokens


class EmbeddingsBody(Options):
    input: inputs.Input | None = None
    """A string, a list of strings, token ids, or native items; or what `messages` takes, as in vLLM."""
    messages: Annotated[list[messages.Message | Conversation], msgspec.Meta(min_length=1)] | None = None
    """vLLM's: one conversation or a list of them, instead of `input`."""
    modality: inputs.Modality | Annotated[list[inputs.Modality], msgspec.Meta(min_length=1)] | None = None
    """Infinity's and NVIDIA's: what the strings of `input` are, all or each."""
    dimensions: Count | None = None
    output_dimension: Count | None = None
    """Voyage's and Mistral's `dimensions`."""
    encoding_format: vectors.Form | None = None
    embed_dtype: vectors.Spelling | None = None
    embedding_type: vectors.Spelling | list[vectors.Spelling] | None = None
    encoding_type: vectors.Spelling | None = None
    """LlamaIndex's name of Jina's `embedding_type`."""
    output_dtype: vectors.Spelling | None = None
    endianness: Literal["native", "little"] | None = None
    task: tasks.Task | None = None
    input_type: tasks.Task | None = None
    prompt_name: tasks.Task | None = None
    truncate: Truncate | None = None
    truncation: bool | None = None
    late_chunking: bool | None = None
    return_multivector: bool | None = None
    normalize: bool | None = None
    normalized: bool | None = None
    use_activation: bool | None = None


class Embedding(TypedDict):
    """`error` stands in for `embedding` where the item failed and `on_error` is `skip`."""

    object: Literal["embedding", "error"]
    index: int
    embedding: NotRequired[vectors.Vector]
    error: NotRequired[dict[str, str | None]]


class EmbeddingsResponse(TypedDict):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


def parse(body: EmbeddingsBody) -> EmbedRequest:
    kind(body)
    for name in ("late_chunking", "return_multivector"):
        refuse(getattr(body, name), name, "each item has one vector, read from its last token")
    unit_length(normalize=body.normalize, normalized=body.normalized, use_activation=body.use_activation)
    explicit = body.asked_instruction()
    named = {"task": body.task, "input_type": body.input_type, "prompt_name": body.prompt_name}
    given: tuple[Content | Tokens, ...] = (
        messages.conversations(body.messages or ())
        if one_of({"input": body.input, "messages": body.messages}) == "messages"
        else inputs.entries(body.input, "input", _modalities(body))
    )
    # Not a task as well: there are clients that send one with whatever they have.
    untold = explicit and any(isinstance(each, Tokens) for each in given)
    refuse(untold, "instruction", "token ids are taken as they are, without the template that holds it")
    return EmbedRequest(
        input=body.sampled(given),
        model=body.model,
        instruction=tasks.instruction(explicit, **named),
        documents=tasks.documents(**named),
        dimensions=agreed({"dimensions": body.dimensions, "output_dimension": body.output_dimension}),
        truncate=cuts(body.truncate, body.truncation),
        max_tokens=body.max_tokens(),
        on_error=body.on_error,
        priority=priority(body.priority),
    )


def unit_length(**flags: bool | None) -> None:
    """Refuse what asks for vectors as they come from the model."""
    for name, wanted in flags.items():
        refuse(wanted is False, name, "vectors always have length 1")


def _modalities(body: EmbeddingsBody) -> list[inputs.Modality]:
    """One for all items, or one for each."""
    given = body.modality if isinstance(body.modality, list) else [body.modality or "text"]
    refuse("audio" in given, "modality", "the model reads texts, images and videos")
    refuse("text_image" in given, "modality", 'write such an item as {"text": …, "image": …}')
    count = len(body.input) if isinstance(body.input, list) else 1
    if len(given) not in (1, count):
        raise BadRequest(
            f"modality: {len(given)} of them for {count} items; give one, or one for each",
            param="modality",
            code="length_mismatch",
        )
    return given


def kind(body: EmbeddingsBody) -> vectors.Kind:
    listed = body.embedding_type if isinstance(body.embedding_type, list) else [body.embedding_type]
    several = "a vector is answered in one; ask once for each, or /v2/embed with `embedding_types`"
    refuse(len(set(listed)) > 1, "embedding_type", several)
    single = listed[0] if listed else None
    return vectors.kind(
        body.encoding_format,
        {
            "embed_dtype": body.embed_dtype,
            "embedding_type": single,
            "encoding_type": body.encoding_type,
            "output_dtype": body.output_dtype,
        },
    )


def render(body: EmbeddingsBody, result: EmbedResult, encode: vectors.Encode) -> EmbeddingsResponse:
    data: list[Embedding] = []
    for i, vector in enumerate(encode(kind(body))):
        if error := result.errors.get(i):
            data.append({"object": "error", "index": i, "error": error.entry()})
        else:
            data.append({"object": "embedding", "index": i, "embedding": vector})
    return {"object": "list", "data": data, "model": result.model, "usage": usage(result.usage)}
