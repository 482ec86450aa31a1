"""The oracle: what the official implementation answers, one item at a time, by default in float32.

    reference = Reference(folder)
    ids, vectors = reference.embed([{"text": "a cat", "image": picture}])
    ids, logits, scores = reference.rerank({"text": "cats"}, [{"image": picture}], instruction=None)

It is built on transformers' Qwen3-VL, qwen_vl_utils and the Hugging Face processor, and shares nothing with
the rest of `qvl.engine`: tests, benchmarks and `qvl check` hold that to it. `Prompts` has the ids alone. An
item is a dict with any of

    text         a string or a list of them
    image        a PIL image or a list of them
    video        a path, a list of PIL frames, or a list of such videos
    instruction  embedder only
    fps, max_frames   for video files

Where it leaves the official code, and why:

* One item at a time. Their batch is padded; the mask removes that again, up to rounding.
* Media that cannot be read raise. Theirs logs the error and answers for the text `NULL` instead.
* `mm_token_type_ids`, new in transformers 5, are made again after the reranker's cut (their code is for
  transformers 4, where positions come from the ids alone).
* Video files are decoded by PyAV, as by torchvision's reader that theirs falls back to and that torchvision
  has dropped since; decord and torchcodec are never used.
* Text alone goes to the processor's tokenizer, as the processor itself did it until transformers 5.20, which
  refuses a pad that stands for no medium.
* Rerank reads `fps` and `max_frames` of each query and document; theirs has one of each per request.

transformers 4 and 5 do not make the same prompt of a video. 4.57 replaced the template's whole
`<|vision_start|><|video_pad|><|vision_end|>` by the timed frames; 5.10 and later replace the pad alone, and
the outer pair of marks stays around them (two tokens more; vLLM follows whichever it finds, its issue 46817).
The oracle calls the installed processor, so the outer pair is part of its answer.

What user text that spells special tokens does (`test_special_tokens.py` holds it to this): the whole
conversation, template and user text alike, is one string to the tokenizer, so

* `<|im_end|>`, `<|im_start|>`, `<|vision_start|>`, `<|endoftext|>`, ... become the control tokens;
* so do `<|image_pad|>` and `<|video_pad|>` in an item without media: one token each, plain positions;
* a pad that stands for no medium of the item (`<|image_pad|>` beside an image, `<|video_pad|>` beside an
  image, in the text or the instruction) makes the official code fail;
* `<think>`, `<tool_call>` and the other added tokens that are not flagged special become single tokens
  too, and the reranker's cut treats them as words.
"""

from qvl.engine.check.reference.oracle import Prompts, Reference

__all__ = ["Prompts", "Reference"]
