"""Pictures of every kind that networks meet, drawn from a seed."""

import numpy as np
from PIL import Image


def draw_pictures(folder):
    """Write files that are wide, tall, tiny, grey, 16-bit, transparent, of a palette and turned by EXIF."""
    rng = np.random.default_rng(0)

    def noise(height, width, channels=3):
        coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), channels), dtype=np.uint8)
        return coarse.repeat(8, 0).repeat(8, 1)[:height, :width]

    pictures = {
        "plain.png": Image.fromarray(noise(200, 240)),
        "wide.png": Image.fromarray(noise(90, 310)),
        "tall.png": Image.fromarray(noise(310, 70)),
        "tiny.png": Image.fromarray(noise(7, 9)),
        "grey.png": Image.fromarray(noise(120, 100, 1)[..., 0]),
        "deep.png": Image.fromarray(noise(120, 100, 1)[..., 0].astype(np.uint16) * 257),
        "clear.png": Image.fromarray(noise(120, 160, 4)),
        "palette.png": Image.fromarray(noise(120, 160)).quantize(16),
        "turned.jpg": Image.fromarray(noise(120, 200)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        exif = Image.Exif()
        exif[274] = 6
        picture.save(folder / name, **({"exif": exif} if name == "turned.jpg" else {}))
    return sorted(folder / name for name in pictures)
