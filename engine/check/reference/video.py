"""The reader of video files that torchvision had: every frame decoded, the wanted ones taken by index.

torchvision has dropped `io.read_video`, and qwen_vl_utils falls back to it, so within `readers()` this one
stands in its table of readers under every name.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import av
import numpy as np
import torch
from qwen_vl_utils import vision_process


def readers() -> AbstractContextManager[Any]:
    names = dict.fromkeys(vision_process.VIDEO_READER_BACKENDS, read_video)
    return mock.patch.dict(vision_process.VIDEO_READER_BACKENDS, names)


def read_video(element: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any], float]:
    """Frames (wanted, 3, H, W) in uint8, their metadata, and frames per second after sampling."""
    with av.open(element["video"].removeprefix("file://")) as file:
        stream = file.streams.video[0]
        rate = float(stream.average_rate)
        decoded = np.stack([frame.to_rgb().to_ndarray() for frame in file.decode(stream)])
    frames = torch.from_numpy(decoded).permute(0, 3, 1, 2)
    total = len(frames)
    count = vision_process.smart_nframes(element, total_frames=total, video_fps=rate)
    wanted = torch.linspace(0, total - 1, count).round().long()
    metadata = {
        "fps": rate,
        "frames_indices": wanted,
        "total_num_frames": total,
        "video_backend": "torchvision",
    }
    return frames[wanted], metadata, count / max(total, 1e-6) * rate
