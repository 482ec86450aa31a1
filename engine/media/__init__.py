"""Images and videos: from what a request names to pixels that equal the reference's."""

from qvl.engine.media.loader import MediaLoader
from qvl.engine.media.quota import Quota
from qvl.engine.media.visual import Visual

__all__ = ["MediaLoader", "Quota", "Visual"]
