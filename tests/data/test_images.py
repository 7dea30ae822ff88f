from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_transfer.data import open_rgb
from lightning_transfer.data.images import ImageFiles, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def write(path, colour=(0, 0, 0), size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).save(path)


RAMP = np.arange(65536).reshape(256, 256)


def pixels(picture):
    assert picture.mode == "RGB"
    values = np.asarray(picture)
    assert (values == values[:, :, :1]).all()  # grey
    return values[:, :, 0]


class TestBitDepth:
    """The mean of a ramp from black to white is 127.5, whatever holds it."""

    @pytest.mark.parametrize("end", ["png", "tiff", "pgm", "jp2"])
    def test_sixteen_bits(self, tmp_path, end):
        Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / f"a.{end}")
        found = pixels(open_rgb(tmp_path / f"a.{end}"))
        if end != "jp2":  # which may lose some of it
            assert np.array_equal(found, np.rint(RAMP / 257))
        assert abs(found.mean() - 127.5) < 0.1

    @pytest.mark.parametrize(
        ("dtype", "white"),
        [
            (np.float32, 1),
            (np.float32, 255),
            (np.float32, 65535),
            (np.int32, 255),
            (np.int32, 65535),
            (np.int32, 2**31 - 1),
        ],
    )
    def test_integers_and_floats_of_32_bits(self, tmp_path, dtype, white):
        Image.fromarray((RAMP / 65535 * white).astype(dtype)).save(tmp_path / "a.tiff")
        assert abs(pixels(open_rgb(tmp_path / "a.tiff")).mean() - 127.5) < 0.6

    def test_a_file_that_names_its_white(self, tmp_path):
        dark = (RAMP // 300).astype(np.int32)
        Image.fromarray(dark).save(tmp_path / "a.tiff", tiffinfo={281: 1000})
        assert np.array_equal(pixels(open_rgb(tmp_path / "a.tiff")), np.rint(dark * 0.255))

    def test_white_is_zero(self, tmp_path):
        Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "a.tiff")
        content = (tmp_path / "a.tiff").read_bytes()
        tag = struct.pack("<HHIH", 262, 3, 1, 1)
        assert content.count(tag) == 1
        found = open_rgb(content.replace(tag, tag[:-2] + b"\0\0"))
        assert np.array_equal(pixels(found), 255 - np.rint(RAMP / 257))

    def test_twelve_bits(self):
        values = np.arange(0, 4096, 16)
        packed = "".join(f"{value:012b}" for value in values)
        data = int(packed, 2).to_bytes(len(packed) // 8, "big")
        tags = [(256, len(values)), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (278, 1), (279, len(data))]
        entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
        offset = 8 + len(data)
        file = struct.pack("<2sHI", b"II", 42, offset) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
        assert np.array_equal(pixels(open_rgb(file))[0], np.rint(values * 255 / 4095))

    def test_ten_bits_of_pgm(self):
        file = b"P5 2 1 1023\n" + np.array([1023, 512], ">u2").tobytes()
        assert pixels(open_rgb(file)).tolist() == [[255, 128]]

    def test_a_transparent_grey_value(self, tmp_path):
        Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "a.png", transparency=257)
        found = pixels(open_rgb(tmp_path / "a.png"))
        assert (found[1, 1], found[1, 0], found[1, 2]) == (255, 1, 1)

    @pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 1e30])
    def test_values_that_are_no_colours(self, tmp_path, bad):
        values = np.zeros((2, 2), np.float32)
        values[0, 0] = bad
        Image.fromarray(values).save(tmp_path / "a.tiff")
        with pytest.raises(ValueError, match=r"a\.tiff to be a readable picture, but got: values .* in mode 'F'"):
            open_rgb(tmp_path / "a.tiff")


class TestOpenRGB:
    @pytest.mark.parametrize("end", ["png", "bmp", "tiff", "ppm", "jpg", "webp"])
    def test_eight_bit_rgb_is_the_file(self, tmp_path, end):
        Image.fromarray(PIXELS).save(tmp_path / f"a.{end}")
        with Image.open(tmp_path / f"a.{end}") as file:
            expected = np.array(file)
        for source in (tmp_path / f"a.{end}", str(tmp_path / f"a.{end}"), (tmp_path / f"a.{end}").read_bytes()):
            assert np.array_equal(open_rgb(source), expected)

    def test_an_open_picture_stays_as_it_is(self):
        picture = Image.fromarray(np.dstack([PIXELS, PIXELS[:, :, 0]]))
        before = picture.tobytes()
        found = open_rgb(picture)
        assert (found.mode, picture.mode, picture.tobytes()) == ("RGB", "RGBA", before)
        plain = Image.fromarray(PIXELS)
        found = open_rgb(plain)
        found.putpixel((0, 0), (1, 2, 3))
        assert np.array_equal(plain, PIXELS)

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "La", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"])
    def test_modes(self, mode):
        assert open_rgb(Image.new(mode, (3, 2))).mode == "RGB"

    def test_formats_that_start_programs_are_no_pictures(self, tmp_path):
        Image.fromarray(PIXELS).save(tmp_path / "a.eps")
        (tmp_path / "a.eps").rename(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a\.png to be a readable picture, but got: cannot identify"):
            open_rgb(tmp_path / "a.png")

    @pytest.mark.parametrize("end", ["png", "gif", "bmp", "tiff"])
    def test_a_picture_that_claims_too_many_pixels(self, tmp_path, end):
        path = tmp_path / f"a.{end}"
        Image.new("L", (3, 2)).save(path)
        content = bytearray(path.read_bytes())
        side = 65000
        if end == "png":
            content[16:24] = struct.pack(">II", side, side)
            content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        elif end == "gif":
            content[6:10] = struct.pack("<HH", side, side)
            frame = content.index(b",", 13 + 3 * 2 ** ((content[10] & 7) + 1))
            content[frame + 5 : frame + 9] = struct.pack("<HH", side, side)
        elif end == "bmp":
            content[18:26] = struct.pack("<ii", side, side)
        else:
            for tag in (256, 257):
                at = content.index(struct.pack("<HHI", tag, 4, 1))
                content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, side)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.{end} to be a readable picture, but got: Image size .* exceeds"):
            open_rgb(path)


class TestReadImage:
    def test_pixels_as_they_are(self, tmp_path):
        Image.fromarray(PIXELS).save(tmp_path / "a.png")
        assert torch.equal(read_image(tmp_path / "a.png"), torch.from_numpy(PIXELS).permute(2, 0, 1))

    def test_modes_become_rgb(self, tmp_path):
        Image.fromarray(PIXELS[:, :, 0]).save(tmp_path / "grey.png")
        grey = read_image(tmp_path / "grey.png")
        assert torch.equal(grey, torch.from_numpy(PIXELS[:, :, 0]).expand(3, -1, -1))
        Image.fromarray(PIXELS).convert("P").save(tmp_path / "palette.gif")
        assert read_image(tmp_path / "palette.gif").shape == (3, 6, 9)

    def test_transparency_is_shown_on_white(self, tmp_path):
        rgba = np.dstack([PIXELS, np.where(np.arange(9) < 4, 0, 255)[None].repeat(6, 0).astype(np.uint8)])
        Image.fromarray(rgba).save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png")
        assert (image[:, :, :4] == 255).all()
        assert torch.equal(image[:, :, 4:], torch.from_numpy(PIXELS).permute(2, 0, 1)[:, :, 4:])

    def test_exif_orientation(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # stored lying on its side
        Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
        assert read_image(tmp_path / "a.png").shape == (3, 9, 6)

    def test_scaled_and_cropped_in_the_centre(self, tmp_path):
        wide = np.zeros((10, 30, 3), np.uint8)
        wide[:, 10:20] = 255
        Image.fromarray(wide).save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png", 10)
        assert image.shape == (3, 10, 10)
        assert (image == 255).all()

    @pytest.mark.parametrize("content", [b"", b"no picture", None])
    def test_unreadable(self, tmp_path, content):
        path = tmp_path / "a.png"
        if content is None:
            Image.fromarray(PIXELS.repeat(50, 0).repeat(50, 1)).save(path)
            content = path.read_bytes()[:400]
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.png to be a readable picture"):
            read_image(path)
        with pytest.raises(ValueError, match="readable picture"):
            read_image(tmp_path / "missing.png")

    def test_sequence_reads_when_asked(self, tmp_path):
        for i in range(3):
            write(tmp_path / f"{i}.png", (i, i, i))
        images = ImageFiles([tmp_path / f"{i}.png" for i in range(3)], 8)
        picked = images[torch.tensor([2, 0])]
        assert (len(images), len(picked)) == (3, 2)
        assert [int(picked[i].max()) for i in range(2)] == [2, 0]
        assert picked[0].shape == (3, 8, 8)
