"""A server of any number of pictures, each with different bytes; some can kill a worker."""

import hashlib
import io

from PIL import Image

from scripts.local.image_server import ImageServer

_SIZE = (64, 48)
POISON = b"POISON"


class PictureServer(ImageServer):
    """Serves /<index>.jpg.

    The pictures with an index in `poisoned` kill a worker that was started with the folder
    `poison` on its PYTHONPATH.
    """

    def __init__(self, delay_s: float = 0.1, poisoned: frozenset[int] = frozenset()) -> None:
        super().__init__(lambda name: self._picture(int(name.removesuffix(".jpg"))), delay_s)
        self._poisoned = poisoned

    def url(self, index: int) -> str:
        """The URL of the picture of this index."""
        return self.url_of(f"{index}.jpg")

    def sha256(self, index: int) -> str:
        """The hash of the picture of this index."""
        return hashlib.sha256(self._picture(index)).hexdigest()

    def _picture(self, index: int) -> bytes:
        """Make a JPEG that is cheap to decode and differs from that of any other index."""
        colour = (index * 37 % 256, index * 101 % 256, index * 211 % 256)
        comment = b"picture %d %b" % (index, POISON if index in self._poisoned else b"")
        target = io.BytesIO()
        Image.new("RGB", _SIZE, colour).save(target, "JPEG", comment=comment)
        return target.getvalue()
