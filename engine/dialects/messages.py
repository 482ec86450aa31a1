"""vLLM's `messages`: one conversation, or a batch of them, each of which is one item.

The system text is the instruction, the user's parts are the item. vLLM's examples end with an empty
assistant turn to obtain the right template: it is allowed and changes nothing. Any other turn would
have no place in what the model was trained on, so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from qvl.engine.dialects import parts
from qvl.engine.dialects.fields import Body
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content

Role: TypeAlias = Literal["system", "user", "assistant"]


class Message(Body):
    role: Role
    content: str | list[parts.Part] | None = None
    name: str | None = None


def conversations(
    messages: Sequence[Message | list[Message]], where: str = "messages"
) -> tuple[Content, ...]:
    """One item for each conversation."""
    single = [message for message in messages if isinstance(message, Message)]
    if len(single) == len(messages):
        return (_item(single, where),)
    if single:
        raise BadRequest(
            f"{where}: give one conversation or a list of conversations, not a mixture", param=where
        )
    batch = [turns for turns in messages if isinstance(turns, list)]
    return tuple(_item(turns, f"{where}[{i}]") for i, turns in enumerate(batch))


def _item(turns: Sequence[Message], where: str) -> Content:
    instruction: str | None = None
    user: Content | None = None
    for i, turn in enumerate(turns):
        param = f"{where}[{i}]"
        said = parts.fold(turn.content or (), f"{param}.content")
        media = said.videos or said.images
        match turn.role:
            case "system" if i == 0:
                if media:
                    raise BadRequest(f"{param}: a system message is text only", param=param)
                instruction = "".join(said.texts)
            case "user" if user is None:
                user = said
            case "assistant" if user is not None and i == len(turns) - 1 and not (media or any(said.texts)):
                pass
            case role:
                raise BadRequest(
                    f"{param}: this {role} message has no place here; an item is at most one system message "
                    "(the instruction), then one user message, then optionally an empty assistant message",
                    param=param,
                    code="unsupported_message",
                )
    if user is None:
        raise BadRequest(f"{where}: there is no user message", param=where, code="missing_field")
    return replace(user, instruction=instruction, where=where)
